"""Configs that are data: code in them is refused and never runs, and the shipped configs can be loaded as data."""

import copy
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, Registry, root
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer, init_model

import rass_mm
from rass_mm import apis
from rass_mm.config import config_from_checkpoint, load_config
from rass_mm.config.registries import registered
from rass_mm.datasets.names import class_names
from rass_mm.errors import ConfigError
from rass_mm_cli.main import main

NEEDS_MMAGIC = pytest.mark.skipif(importlib.util.find_spec('mmagic') is None, reason='needs mmagic')

LEAVES = sorted(path for path in rass_mm.config_path().rglob('*.py') if '_base_' not in path.parts)
OWN = load_config('rass/rass_scenes_tiny.py').to_dict()
PLACES = {
    'model': 'MODELS',
    'model.backbone': 'MODELS',
    'model.decode_head': 'MODELS',
    'model.data_preprocessor': 'MODELS',
    'model.auxiliary[0]': 'MODELS',
    'train_dataloader.dataset': 'DATASETS',
    'train_dataloader.dataset.datasets[1].dataset': 'DATASETS',
    'train_dataloader.sampler': 'DATA_SAMPLERS',
    'train_dataloader.collate_fn': 'FUNCTIONS',
    'train_dataloader.dataset.pipeline[2]': 'TRANSFORMS',
    'train_dataloader.dataset.pipeline[0].transforms[0][1]': 'TRANSFORMS',
    'val_evaluator': 'METRICS',
    'test_evaluator[0]': 'METRICS',
    'optim_wrapper': 'OPTIM_WRAPPERS',
    'optim_wrapper.optimizer': 'OPTIMIZERS',
    'param_scheduler[0]': 'PARAM_SCHEDULERS',
    'default_hooks.timer': 'HOOKS',
    'custom_hooks[0]': 'HOOKS',
    'train_cfg': 'LOOPS',
    'visualizer': 'VISUALIZERS',
    'visualizer.vis_backends[0]': 'VISBACKENDS',
    'log_processor': 'LOG_PROCESSORS',
    'model_wrapper_cfg': 'MODEL_WRAPPERS',
    'model.backbone.init_cfg': 'WEIGHT_INITIALIZERS',
}
"""Places of a type in a config, and the registry in which mmengine looks it up."""


def planted(place, value, config=None):
    """Returns a copy of a config with a value at a dotted place. Missing dicts and lists are created."""
    config = copy.deepcopy(config or {'model': {'type': 'RASS'}})
    keys = [int(key) if key.isdigit() else key for key in place.replace('[', '.').replace(']', '').split('.')]
    node = config
    for key, following in zip(keys, [*keys[1:], None], strict=True):
        if isinstance(key, int):
            node += [{} for _ in range(key + 1 - len(node))]
        missing = key not in node if isinstance(node, dict) else not isinstance(node[key], dict | list) or not node[key]
        if following is None:
            node[key] = value
        elif missing or isinstance(node[key], list) != isinstance(following, int):
            node[key] = [] if isinstance(following, int) else {}
        node = node[key]
    return config


def part(config, place):
    for key in place.replace('[', '.').replace(']', '').split('.'):
        config = config[int(key) if key.isdigit() else key]
    return config


def read_json(config):
    Path('own.json').write_text(json.dumps(config))
    return load_config('own.json')


def read_yaml(config):
    Path('own.yaml').write_text(yaml.safe_dump(config))
    return load_config('own.yaml')


def read_text(config):
    return config_from_checkpoint({'meta': {'cfg': as_text(config)}}, 'own.pth')


def read_as_mmengine(config):
    """Reads a config as mmseg's `init_model` and user scripts do."""
    Path('own.yml').write_text(yaml.safe_dump(config))
    return Config.fromfile('own.yml')


def as_text(config):
    return '\n'.join(f'{key} = {value!r}' for key, value in config.items())


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Provides a new current folder on Python's path, with a module that creates the file `canary` when imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'evil_module.py').write_text(
        f"open({str(tmp_path / 'canary')!r}, 'w').close()\ndef touch(*_, **__):\n    pass\n"
    )
    yield tmp_path
    assert not (tmp_path / 'canary').exists()


@pytest.mark.parametrize('read', [read_json, read_yaml, read_text])
@pytest.mark.parametrize('place', PLACES)
def test_a_dotted_type_is_refused_at_every_place_by_every_reader(place, read, here):
    config = planted(place, {'type': 'os.system', 'command': f'touch {here}/canary'})
    with pytest.raises(ConfigError) as caught:  # if the reader accepts it, build it as a runner would
        getattr(root, PLACES[place]).build(part(read(config), place))
    message = str(caught.value)
    assert f"{place}.type='os.system'" in message and 'own.' in message
    assert '.py' in message and 'IoUMetric' in message  # how to fix it, and what is allowed


@pytest.mark.parametrize('read', [read_json, read_yaml, read_text, read_as_mmengine])
@pytest.mark.parametrize(
    'name',
    [
        'mmengine.utils.package_utils.call_command',
        'evil_module.touch',
        'evil_module',
        'mmseg.models.losses.DiceLoss',
        'mmseg.evil_module.touch',
        'evil_module.IoUMetric',
        'mmdet.CameraMotionCompensation',
        'RFSearchHook',
        pytest.param('mmagic.SinGAN', marks=NEEDS_MMAGIC),
        '.IoUMetric',
        5,
        'RASS ',
        '',
    ],
)
def test_only_registered_names_are_types(name, read, here):
    with pytest.raises(ConfigError) as caught:
        read(planted('test_evaluator[0]', {'type': name}))
    assert f'test_evaluator[0].type={name!r}' in str(caught.value)


@pytest.mark.parametrize('read', [read_json, read_yaml, read_text, read_as_mmengine])
@pytest.mark.parametrize('imports', ['evil_module', ['evil_module'], ['rass_mm', 'evil_module'], ['os', 'subprocess']])
def test_custom_imports_names_a_fixed_list_of_modules(imports, read, here):
    config = {'custom_imports': {'imports': imports, 'allow_failed_imports': True}, 'model': {'type': 'RASS'}}
    refused = next(name for name in ([imports] if isinstance(imports, str) else imports) if name != 'rass_mm')
    with pytest.raises(ConfigError, match=rf'custom_imports.imports\[\d\]={refused!r}.*rass_mm.restoration'):
        read(config)


REFUSED = {
    'optim_wrapper.constructor': 'evil_module.touch',
    'test_dataloader.collate_fn': 'evil_module.touch',
    'train_dataloader.worker_init_fn.type': 'evil_module.touch',
    'custom_hooks[0].ema_type': 'evil_module.touch',
    'runner_type': 'evil_module.touch',
    'model.decode_head.type': ['evil_module.touch'],
    'default_scope': 'evil_module',
    'model._scope_': 'evil_module',
    'load_from': 'https://example.org/a.pth',
    'resume_from': '/elsewhere/a.pth',
    'model.backbone.init_cfg': {'type': 'Pretrained', 'checkpoint': '../a.pth'},
    'model.pretrained': 'open-mmlab://resnet50_v1c',
    'train_dataloader.dataset.data_root': 's3://bucket/data',
    'train_dataloader.dataset.ann_file': 'annotations.pkl',
    'model.loss.class_weight': 'weights.PICKLE',
    'train_dataloader.dataset.pipeline[0].decode_backend': 'pickle',
    'train_dataloader.dataset.pipeline[1].backend_args': {'backend': 'memcached', 'sys_path': '.'},
    'train_dataloader.dataset.pipeline[2].file_client_args': {'backend': 'petrel'},
    'train_dataloader.dataset.pipeline[3].backend_args': {'backend': ['local']},
    'custom_imports': {'imports': 5},
    'model.generator.custom_pipeline': './folder',
    'model.generator.trust_remote_code': True,
    "x': __import__('evil_module'), 'y": 1,
}


@pytest.mark.parametrize('place', REFUSED)
def test_other_ways_to_run_code_or_read_other_files_are_refused_with_their_key(place, here):
    (here / 'folder').mkdir()
    config = {place: 1} if '__import__' in place else planted(place, REFUSED[place], {'model': {'type': 'RASS'}})
    (here / 'folder' / 'own.json').write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        load_config('folder/own.json')
    key = place.removesuffix('.init_cfg').rpartition('.')[0] if '__import__' in place else place
    assert f'{here}/folder/own.json' in str(caught.value) and key in str(caught.value)


def test_after_data_is_read_registries_import_nothing_by_name(here):
    read_json({'model': {'type': 'RASS'}})
    for name in ('evil_module', 'evil_module.touch'):  # a class may look up an argument with its own key
        with pytest.raises((RuntimeError, KeyError)):
            MODELS.build({'type': name})
    assert MODELS.get('mmdet.CrossEntropyLoss').__name__ == 'CrossEntropyLoss'


@pytest.mark.parametrize('command', ['train', 'test', 'check-data', 'benchmark', 'robustness'])
@pytest.mark.parametrize('suffix', ['.json', '.yaml'])
def test_every_command_refuses_a_dotted_type(command, suffix, here, capsys):
    config = planted('test_dataloader.dataset', {'type': 'os.system', 'command': 'touch canary'}, OWN)
    Path(f'own{suffix}').write_text(json.dumps(config))  # JSON is YAML
    more = {'robustness': ['absent.pth', '--out', 'curves']}.get(command, [])
    assert main([command, f'own{suffix}', *more]) == 1
    error = capsys.readouterr().err
    assert "test_dataloader.dataset.type='os.system'" in error and 'Traceback' not in error


def evil_checkpoint(**meta):
    text = as_text(planted('model', {'type': 'os.system', 'command': 'touch canary'}))
    meta = {**dict.fromkeys(meta, text), 'epoch': 0, 'iter': 0}
    torch.save({'state_dict': {'weight': torch.zeros(1)}, 'meta': meta}, 'evil.pth')
    return text


def test_mmsegs_inferencer_and_init_model_do_not_run_a_dotted_type(here):
    evil_checkpoint(cfg=True)
    with pytest.raises(ConfigError, match=r"model.type='os.system'"):
        MMSegInferencer(None, weights='evil.pth', device='cpu')
    (here / 'own.json').write_text(
        json.dumps(planted('model.backbone', {'type': 'os.system', 'command': 'touch canary'}))
    )
    with pytest.raises(ConfigError, match=r"model.backbone.type='os.system'"):
        init_model('own.json', device='cpu')


def test_resuming_does_not_run_the_config_text_of_a_checkpoint(here):
    evil_checkpoint(config=True)
    runner = SimpleNamespace(train_loop=SimpleNamespace(), load_checkpoint=lambda file, **_: torch.load(file))
    with pytest.raises(ConfigError, match=r"model.type='os.system'"):
        Runner.resume(runner, 'evil.pth', map_location='cpu')


OTHER_BASES = [
    'code.py',
    '/tmp/own.json',
    '../elsewhere.json',
    'mmseg::_base_/default_runtime.py',
    3,
    'a\0.json',
    'a' * 5000,
]


@pytest.mark.parametrize('base', OTHER_BASES)
def test_a_base_that_is_code_or_elsewhere_is_refused(base, here):
    (here / 'code.py').write_text("import evil_module\nmodel = dict(type='RASS')\n")
    (here.parent / 'elsewhere.json').write_text('{}')
    with pytest.raises(ConfigError, match='_base_='):
        read_json({'_base_': base})


def test_bases_are_read_by_the_same_rules(here):
    (here / 'base.json').write_text(json.dumps(planted('model', {'type': 'evil_module.touch'})))
    with pytest.raises(ConfigError, match=r'base.json: model.type'):
        read_json({'_base_': 'base.json'})
    (here / 'base.json').write_text(json.dumps({'_base_': 'own.json'}))
    with pytest.raises(ConfigError, match='inherits from itself'):
        read_json({'_base_': 'base.json'})


def test_inherits_from_a_shipped_config_and_from_files_beside_it_like_a_py_config(here):
    (here / 'schedule.yaml').write_text('note: 7\n')
    bases = [str(rass_mm.config_path('rass/rass_scenes_tiny.py')), 'schedule.yaml']
    change = {'model': {'decode_head': {'num_classes': 3}}, 'val_evaluator': {'_delete_': True, 'type': 'IoUMetric'}}
    (here / 'own.py').write_text(as_text({'_base_': bases, **change}))
    expected = load_config('own.py').to_dict()
    for base in (bases[0], 'rass/rass_scenes_tiny.py'):
        assert read_json({'_base_': [base, 'schedule.yaml'], **change}).to_dict() == expected
    assert expected['model']['decode_head']['num_classes'] == 3 and expected['note'] == 7


BROKEN = {
    'own.json': ['[' * 5000, '[]', '{"a": ', '{"a": ' * 150 + '1' + '}' * 150, '{"a": "{{$HOME:x}}"}', '{"text": 1}'],
    'own.txt': ['a: 1'],
}


@pytest.mark.parametrize(('name', 'text'), [(name, text) for name, texts in BROKEN.items() for text in texts])
def test_a_file_that_is_not_a_config_raises_a_config_error(name, text, here):
    (here / name).write_text(text)
    with pytest.raises(ConfigError, match=name):
        load_config(name)


def test_a_huge_file_and_bytes_are_refused(here):
    (here / 'own.json').write_text('"' + 'a' * 5_000_000 + '"')
    with pytest.raises(ConfigError, match='larger than 4 MB'):
        load_config('own.json')
    (here / 'own.json').write_bytes(b'\xff\xfe')
    with pytest.raises(ConfigError, match='not UTF-8'):
        load_config('own.json')


def lists(value):
    """Converts tuples to lists, because JSON has no tuples."""
    if isinstance(value, dict):
        return {key: lists(item) for key, item in value.items()}
    return [lists(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_a_shipped_config_as_json_and_yaml_is_the_same_config(path, here):
    if path.parent.name == 'scr':
        pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    config = load_config(path)
    for name in ('own.json', 'own.yaml'):
        with open(here / name, 'w') as file:
            config.to_dict() and (json.dump if name == 'own.json' else yaml.dump)(config.to_dict(), file)
    assert load_config('own.json').to_dict() == lists(config.to_dict())
    assert load_config('own.yaml').to_dict() == config.to_dict()  # mmengine's tag for tuples is read


@pytest.mark.parametrize('suffix', ['.json', '.yaml'])
def test_configs_dumped_by_mmengine_are_read_and_options_are_not_checked(suffix, here):
    load_config('rass/rass_scenes_tiny.py').dump(f'own{suffix}')
    config = load_config(f'own{suffix}', {'model.type': 'mmengine.model.BaseModel', 'load_from': '/elsewhere/a.pth'})
    assert (config.model.type, config.load_from) == ('mmengine.model.BaseModel', '/elsewhere/a.pth')
    assert config.model.backbone == OWN['model']['backbone'] and config.filename == f'own{suffix}'


def test_weights_below_the_current_folder_and_beside_the_config_are_accepted(here):
    (here / 'a').mkdir()
    for name in ('pretrained/a.pth', f'{here}/b/a.pth', f'{here}/a/c.pth'):
        config = planted('model.backbone.init_cfg', {'type': 'Pretrained', 'checkpoint': name})
        (here / 'a' / 'own.json').write_text(json.dumps(config))
        assert load_config('a/own.json').model.backbone.init_cfg.checkpoint == name


def test_the_config_is_recovered_from_a_training_checkpoint(scenes, here):
    name = 'baselines/resnet_scenes_tiny.py'
    options = {f'{split}_dataloader.dataset.data_root': str(scenes) for split in ('train', 'val', 'test')}
    options |= {'train_cfg.max_iters': 1, 'train_cfg.val_interval': 9, 'default_hooks.checkpoint.interval': 1}
    options |= {'train_dataloader.num_workers': 0, 'train_dataloader.persistent_workers': False, 'log_level': 'ERROR'}
    config = apis.prepare_config(load_config(name, options), work_dir='work')
    apis.train(config)
    checkpoint = torch.load('work/iter_1.pth')
    assert config_from_checkpoint(checkpoint, 'iter_1.pth').to_dict() == config.to_dict()
    assert config_from_checkpoint({'meta': checkpoint['meta']}, 'iter_1.pth').to_dict() == config.to_dict()
    assert Config.fromstring(config.pretty_text, '.py').to_dict() == config.to_dict()


@pytest.fixture(autouse=True)
def own_scope():
    """Restores the default scope of the process, which runners and inferencers set."""
    before = copy.copy(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict = before


def test_class_names_are_looked_up_and_not_imported(here):
    for name in ('evil_module', 'evil_module.touch'):
        with pytest.raises(ConfigError, match=f'classes={name!r} is not a registered data set'):
            class_names(name)
    assert class_names('ADE20KDataset')[0] == class_names('mmseg.ADE20KDataset')[0] == 'wall'


def test_an_unknown_name_does_not_need_the_modules_of_other_packages(monkeypatch):
    def broken(node):
        if node.scope == 'mmdet':
            raise ImportError('no imgaug')

    monkeypatch.setattr(Registry, 'import_from_location', broken)
    assert registered('NoSuchDataset') is None
    with pytest.raises(ImportError, match='imgaug'):
        registered('mmdet.NoSuchDataset')
