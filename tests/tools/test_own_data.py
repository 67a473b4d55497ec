"""An own data set of five classes, which are named once: every kind of model follows, by the real commands."""

import json

import numpy as np
import pytest
from commands import python, tools
from mmengine.config import Config
from PIL import Image

import rass_mm
from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.trained_state import read_provenance

CLASSES = ['soil', 'leaf', 'stem', 'fruit', 'pest']
CONFIGS = rass_mm.config_path()
DATA = """
metainfo = dict(classes=('soil', 'leaf', 'stem', 'fruit', 'pest'))
common = dict(type='BaseSegDataset', data_root='{data}', img_suffix='.png', seg_map_suffix='.png')
train = dict(**common, metainfo=metainfo, data_prefix=dict(img_path='images', seg_map_path='labels'))
val = dict(**common, data_prefix=dict(img_path='images', seg_map_path='labels'))
loading = [dict(type='LoadImageStrict'), dict(type='LoadLabelStrict')]
cropping = [dict(type='RandomCrop', crop_size=(64, 64)), dict(type='LQDegradation')]
packing = [dict(type='PackSegInputs')]
sampler = dict(type='DefaultSampler', shuffle=False)
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='SeededSampler'),
    dataset=dict(**train, pipeline=loading + cropping + packing),
)
val_dataloader = dict(batch_size=2, num_workers=0, sampler=sampler, dataset=dict(**val, pipeline=loading + packing))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric')
"""
OF_PARTS = "_base_ = ['{configs}/_base_/tiny_runtime.py', '{model}', '{configs}/_base_/schedules/tiny.py', 'data.py']\n"
OF_A_LEAF = """
_base_ = ['{model}']
metainfo = dict(classes=('soil', 'leaf', 'stem', 'fruit', 'pest'))
own = dict(type='BaseSegDataset', data_root='{data}', metainfo=metainfo, img_suffix='.png', seg_map_suffix='.png')
images = dict(img_path='images', seg_map_path='labels')
train_dataloader = dict(dataset=dict(**own, data_prefix=images), batch_size=2)
val_dataloader = dict(dataset=dict(**own, data_prefix=images), batch_size=2)
test_dataloader = val_dataloader
"""
MODELS = {
    'rass': (OF_PARTS, '_base_/models/rass_upernet_tiny.py'),
    'mask2former': (OF_A_LEAF, 'rass/rass_scenes_tiny_mask2former.py'),
    'resnet': (OF_A_LEAF, 'baselines/resnet_scenes_tiny.py'),
    'plain': (OF_PARTS, '_base_/models/fcn_diffusion_tiny.py'),
}
SHORT = 'train_cfg = dict(max_iters=2, val_interval=2)\nmodel = dict(data_preprocessor=dict(size=(64, 64)){base})\n'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Four images of 96x96 whose labels have ids 0 to 4, and 255."""
    root, rng = tmp_path_factory.mktemp('own'), np.random.default_rng(0)
    for folder in ('images', 'labels'):
        (root / folder).mkdir()
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(root / f'images/{index}.png')
        label = np.kron(rng.permutation(36).reshape(6, 6) % 5, np.ones((16, 16))).astype(np.uint8)
        label[:2] = 255
        Image.fromarray(label).save(root / f'labels/{index}.png')
    return root


def written(folder, kind, data, base, more=''):
    """A user's config and his data's file, as he writes them."""
    template, model = MODELS[kind]
    (folder / 'data.py').write_text(DATA.format(data=data))
    text = template.format(configs=CONFIGS, model=CONFIGS / model, data=data)
    place = '' if kind == 'resnet' else f", backbone=dict(base='{base}')"
    (folder / 'own.py').write_text(text + SHORT.format(base=place) + more)
    return folder / 'own.py'


@pytest.fixture(scope='module')
def runs(data, tiny_base, tmp_path_factory):
    """Work folders of two iterations of each kind of model, tests and checks; at last one with a wrong count stops."""
    folders, commands = {kind: tmp_path_factory.mktemp(kind) for kind in MODELS}, []
    for kind, folder in folders.items():
        config, work = written(folder, kind, data, tiny_base), folder / 'work'
        tested = ['--work-dir', work / 'test', '--out', work / 'maps']
        commands.append(['tools/train.py', config, '--work-dir', work])
        commands.append(['tools/test.py', config, work / 'iter_2.pth', *tested])
    commands.append(['rass_mm/__main__.py', 'check-data', config, '--json', work / 'found.json', '--workers', 1])
    commands.append(['tools/train.py', config, '--cfg-options', 'model.decode_head.num_classes=7'])
    done = tools(*commands)
    assert done.stderr.count('error: ') == 1 and done.returncode == 1, done.stdout[-2000:] + done.stderr[-3000:]
    return {'stderr': done.stderr, **{kind: folder / 'work' for kind, folder in folders.items()}}


@pytest.mark.parametrize('kind', MODELS)
def test_everything_follows_the_names_of_the_data(kind, runs):
    work = runs[kind]
    state = load_local(work / 'iter_2.pth')['state_dict']
    last, outputs = {'mask2former': ('cls_embed', 6)}.get(kind, ('conv_seg', 5))
    assert len(state[f'decode_head.{last}.weight']) == outputs
    provenance = {'rass': '_extra_state', 'mask2former': '_extra_state', 'plain': 'backbone._extra_state'}.get(kind)
    assert provenance is None or read_provenance(state[provenance])['classes'] == CLASSES
    kept = Config.fromfile(str(work / 'own.py'))
    steps = [step for loader in ('train', 'val', 'test') for step in kept[f'{loader}_dataloader'].dataset.pipeline]
    assert [step.num_classes for step in steps if step.type == 'LoadLabelStrict'] == [5, 5, 5]
    assert kept.model.decode_head.num_classes == kept.num_classes == 5
    assert 'mIoU' in next(work.glob('*/*.log')).read_text()


@pytest.mark.parametrize('kind', MODELS)
def test_its_checkpoint_predicts_these_classes(kind, runs):
    assert 0 <= json.loads((runs[kind] / 'test' / 'metrics.json').read_text())['metrics']['mIoU'] <= 100
    maps = [np.asarray(Image.open(file)) for file in sorted((runs[kind] / 'maps').glob('*.png'))]
    assert len(maps) == 4 and max(image.max() for image in maps) < 5


def test_plain_runner_follows_too(data, tiny_base, tmp_path):
    """As mmseg's own tools do it: `Config.fromfile`, which imports the package, and `Runner.from_cfg`."""
    config = written(tmp_path, 'rass', data, tiny_base, f"work_dir = '{tmp_path}/work'\n")
    done = python('-c', RUN, config)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    state = load_local(tmp_path / 'work' / 'iter_2.pth')['state_dict']
    assert (
        len(state['decode_head.conv_seg.weight']) == 5 and read_provenance(state['_extra_state'])['classes'] == CLASSES
    )


RUN = """
import sys
from mmengine.config import Config
from mmengine.runner import Runner
Runner.from_cfg(Config.fromfile(sys.argv[1])).train()
"""


def test_check_data_counts_the_classes_of_the_data(runs):
    (train, *_) = json.loads((runs['plain'] / 'found.json').read_text())['data']
    assert [row['name'] for row in train['classes']] == CLASSES and train['hints'] == []


def test_a_wrong_count_is_an_error_that_names_both(runs):
    message = runs['stderr'].rpartition('error: ')[2]
    assert 'train_dataloader (BaseSegDataset) has 5 classes (soil, leaf, stem, fruit, ...)' in message
    assert 'model.decode_head.num_classes=7' in message and 'Traceback' not in message
