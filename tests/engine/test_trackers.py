"""Trackers by one key: what TensorBoard reads back, calls of stand-ins for others, and errors."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from commands import ROOT, warm
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rass_mm.config.building import named_parts
from rass_mm.config.settings import check_settings
from rass_mm.engine import trackers
from rass_mm.engine.trackers import drop_trackers, use_trackers
from rass_mm.errors import ConfigError, InstallationError

KINDS = {'rass': 'rass/rass_scenes_tiny.py', 'scr': 'scr/scr_scenes_tiny.py'}


def config_of(names, model='RASS', **others):
    backends = [{'type': 'LocalVisBackend'}]
    visualizer = {'type': 'SegLocalVisualizer', 'vis_backends': backends}
    hooks = [{'type': 'IterationSeedHook'}]
    return Config(
        {'model': {'type': model}, 'trackers': names, 'work_dir': 'work/run', 'visualizer': visualizer}
        | {'custom_hooks': hooks, **others}
    )


def options_of(kind, base, scenes):
    place = 'model.base' if kind == 'scr' else 'model.backbone.base'
    roots = [f'{name}_dataloader.dataset.data_root={scenes}' for name in ('train', 'val')]
    sizes = ['train_dataloader.batch_size=2', 'train_cfg.max_iters=2', 'default_hooks.logger.interval=1']
    return [f'{place}={base}', *roots, *sizes]


def test_tensorboard_gets_scalars_and_pictures(tmp_path):
    config = config_of('tensorboard')
    use_trackers(config)
    backend = VISBACKENDS.build({**config.visualizer.vis_backends[-1], 'save_dir': str(tmp_path)})
    backend.add_scalars({'loss': 0.5}, step=3)
    backend.add_image('val_0_a.png', np.full((8, 16, 3), 90, np.uint8), step=4)
    backend.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars('loss')] == [(3, 0.5)]
    (image,) = events.Images('val_0_a.png')
    assert (image.step, image.height, image.width) == (4, 8, 16)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_tensorboard_reads_back_scalars_and_pictures(kind, tiny_base, scenes, tmp_path):
    if kind == 'scr':
        pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    work, elsewhere = tmp_path / 'work', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    options = [*options_of(kind, tiny_base, scenes), 'trackers=tensorboard']
    done = warm(
        *(ROOT / 'tools' / 'train.py', KINDS[kind], '--work-dir', work, '--cfg-options', *options), cwd=elsewhere
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(elsewhere.iterdir())
    (folder,) = work.glob('*/vis_data')
    events = EventAccumulator(str(folder), size_guidance={'images': 0}).Reload()
    rows = [json.loads(line) for line in (folder / 'scalars.json').read_text().splitlines()]
    losses = [(row['step'], row['loss']) for row in rows if 'loss' in row]
    assert [(event.step, event.value) for event in events.Scalars('loss')] == [
        (step, pytest.approx(value, rel=1e-6)) for step, value in losses
    ]
    metric = {'rass': 'mIoU', 'scr': 'PSNR'}[kind]
    (found,) = events.Scalars(metric)
    assert found.step == 2 and found.value == pytest.approx(next(row[metric] for row in rows if metric in row))
    names = sorted(events.Tags()['images'])
    pictures = [name for name in names if name.startswith('val_')]
    assert len(pictures) == 4
    image = events.Images(pictures[0])[0]
    if kind == 'rass':  # labels and prediction side by side
        assert (image.height, image.width, image.step) == (96, 192, 2)
    else:  # input, restored and clean, enlarged twice, with captions
        assert (image.height, image.width, image.step) == (192 + 24, 3 * (192 + 12), 2)
        assert len([name for name in names if name.startswith('attention_')]) == 4
    copy, weights = work / KINDS[kind].rpartition('/')[2], next(work.glob('iter_2.pth'))
    options = [f'test_dataloader.dataset.data_root={scenes}']
    tested = tmp_path / 'tested'
    done = warm(*(ROOT / 'tools' / 'test.py', copy, weights, '--work-dir', tested, '--cfg-options', *options))
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tested.rglob('events*')) and len(list(work.rglob('events*'))) == 1


class Calls:
    """Module that records the calls of its functions."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)

        def record(*args, **kwargs):
            self.calls.append((name, args, kwargs))

        return record


def built(name, monkeypatch, work, module=None):
    """The backend of a tracker with a stand-in for its package."""
    module = module or Calls()
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: SimpleNamespace(origin='package'))
    config = config_of(name)
    config.work_dir = str(work)
    use_trackers(config)
    with named_parts(config):  # with the checks of a training
        backend = VISBACKENDS.build({**config.visualizer.vis_backends[-1], 'save_dir': str(work / 'vis_data')})
    return backend, module


@pytest.mark.parametrize(('variables', 'mode'), [({}, 'offline'), ({'WANDB_MODE': 'online'}, 'online')])
def test_wandb_is_offline_unless_asked_and_stays_in_the_work_folder(monkeypatch, tmp_path, variables, mode):
    places = ('WANDB_CACHE_DIR', 'WANDB_DATA_DIR', 'WANDB_CONFIG_DIR')
    for name in ('WANDB_MODE', 'WANDB_DISABLE_GIT', *places):
        monkeypatch.setenv(name, '')  # restored after the test
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    backend, wandb = built('wandb', monkeypatch, tmp_path / 'run')
    backend.add_scalars({'loss': 0.5, 'lr': 0.1}, step=3)
    (start, scalars) = wandb.calls
    assert start[0] == 'init' and start[2]['mode'] == mode and start[2]['name'] == 'run'
    assert start[2]['save_code'] is False and trackers.os.environ['WANDB_DISABLE_GIT'] == 'true'
    assert start[2]['dir'] == str(tmp_path / 'run' / 'vis_data')
    assert scalars == ('log', ({'loss': 0.5, 'lr': 0.1},), {'commit': True})
    given = {name for name in places if name in trackers.os.environ}
    assert given == set(places[:2]) | (set(places[2:]) if mode == 'offline' else set())
    assert all(trackers.os.environ[name].startswith(str(tmp_path)) for name in given)
    built('wandb', monkeypatch, tmp_path / 'second')  # another training in this process
    assert all(trackers.os.environ[name].startswith(str(tmp_path / 'second')) for name in given)


def test_an_empty_mode_of_wandb_is_offline_and_own_folders_stay(monkeypatch, tmp_path):
    monkeypatch.setenv('WANDB_MODE', '')
    for name in ('WANDB_CONFIG_DIR', 'WANDB_DISABLE_GIT'):
        monkeypatch.setenv(name, 'before')  # restored after the test
    for name in ('WANDB_CACHE_DIR', 'WANDB_DATA_DIR'):
        monkeypatch.setenv(name, '/own')
    backend, wandb = built('wandb', monkeypatch, tmp_path / 'run')
    assert backend._init_kwargs['mode'] == 'offline' and trackers.os.environ['WANDB_CACHE_DIR'] == '/own'


def test_wandb_stores_the_config_but_no_code(monkeypatch, tmp_path):
    for name in ('WANDB_CACHE_DIR', 'WANDB_DATA_DIR', 'WANDB_CONFIG_DIR', 'WANDB_DISABLE_GIT'):
        monkeypatch.setenv(name, 'before')  # restored after the test
    wandb = Calls()
    wandb.config, wandb.run = Calls(), Calls()
    backend, _ = built('wandb', monkeypatch, tmp_path / 'run', wandb)
    backend.add_config(Config({'model': {'type': 'RASS'}}))
    backend.close()
    assert [(name, args) for name, args, _ in wandb.config.calls] == [('update', ({'model': {'type': 'RASS'}},))]
    assert wandb.run.calls == [] and [name for name, *_ in wandb.calls] == ['init', 'join']


@pytest.mark.parametrize('address', [None, 'http://server:5000'])
def test_mlflow_writes_files_unless_it_is_given_a_server(monkeypatch, tmp_path, address):
    for name in ('MLFLOW_TRACKING_URI', 'MLFLOW_DISABLE_TELEMETRY', 'MLFLOW_ALLOW_FILE_STORE'):
        monkeypatch.setenv(name, '')  # restored after the test
        monkeypatch.delenv(name)
    if address:
        monkeypatch.setenv('MLFLOW_TRACKING_URI', address)
    backend, mlflow = built('mlflow', monkeypatch, tmp_path / 'run')
    backend.add_scalars({'mIoU': 30.0}, step=3)
    calls = {name: args for name, args, _ in mlflow.calls}
    assert calls['set_tracking_uri'] == (address or f'file://{tmp_path / "run" / "vis_data"}',)
    assert trackers.os.environ['MLFLOW_DISABLE_TELEMETRY'] == 'true'
    assert calls['set_experiment'] == ('run',) and calls['log_metrics'] == ({'mIoU': 30.0}, 3)
    log = tmp_path / 'run' / 'a.log'
    log.parent.mkdir(exist_ok=True)
    log.write_text('')
    backend.add_config(Config({'work_dir': str(log.parent)}))
    backend.close()
    assert [args for name, args, _ in mlflow.calls if name == 'log_artifact'] == [(str(log), '')]
    assert mlflow.calls[-1][0] == 'end_run'


def test_mlflow_keeps_each_validation_and_stores_only_the_logs_of_its_run(monkeypatch, tmp_path):
    for name in ('MLFLOW_TRACKING_URI', 'MLFLOW_DISABLE_TELEMETRY', 'MLFLOW_ALLOW_FILE_STORE'):
        monkeypatch.setenv(name, '')  # restored after the test
    backend, mlflow = built('mlflow', monkeypatch, tmp_path / 'run')
    for step in (2, 4):
        backend.add_image('val_0_a.png', np.zeros((4, 4, 3), np.uint8), step)
    stored = tmp_path / 'run' / 'vis_data' / '1' / '2' / 'artifacts' / 'vis_data' / 'scalars.json'
    stored.parent.mkdir(parents=True)  # a file that MLflow itself wrote
    for file in (stored, tmp_path / 'run' / 'vis_data' / 'scalars.json', tmp_path / 'run' / 'a.log'):
        file.write_text('{}')
    backend.close()
    assert [args[1] for name, args, _ in mlflow.calls if name == 'log_image'] == ['val_0_a_2.png', 'val_0_a_4.png']
    stored = [args[0] for name, args, _ in mlflow.calls if name == 'log_artifact']
    assert stored == [str(tmp_path / 'run' / 'a.log'), str(tmp_path / 'run' / 'vis_data' / 'scalars.json')]


def test_the_key_adds_backends_and_a_hook_once():
    config = config_of(['tensorboard', 'tensorboard'])
    use_trackers(config)
    use_trackers(config)  # as with the config that a training writes to its work folder
    assert [part.type for part in config.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    assert [hook.type for hook in config.custom_hooks] == ['IterationSeedHook', 'PredictionImagesHook']
    restorer = config_of('tensorboard', model='mmagic.SCRRestorer')
    use_trackers(restorer)
    assert restorer.custom_hooks[-1].type == 'mmagic.RestorationImagesHook'


def test_the_config_of_an_earlier_training_gets_the_settings_of_this_one(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: SimpleNamespace(origin='package'))
    for name in (
        'WANDB_CACHE_DIR',
        'WANDB_DATA_DIR',
        'WANDB_CONFIG_DIR',
        'WANDB_DISABLE_GIT',
        'MLFLOW_ALLOW_FILE_STORE',
    ):
        monkeypatch.setenv(name, 'before')  # restored after the test
    monkeypatch.setenv('WANDB_MODE', 'online')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://server:5000')
    config = config_of(['wandb', 'mlflow'])
    config.visualizer.vis_backends.append({'type': 'mmengine.WandbVisBackend', 'init_kwargs': {'mode': 'online'}})
    use_trackers(config)
    first = config.visualizer.vis_backends
    assert first[1].init_kwargs.mode == 'online' and first[2].tracking_uri == 'http://server:5000'
    monkeypatch.delenv('WANDB_MODE')
    monkeypatch.delenv('MLFLOW_TRACKING_URI')
    config.work_dir = 'work/next'
    use_trackers(config)
    second = config.visualizer.vis_backends
    assert [part.type for part in second] == ['LocalVisBackend', 'WandbRunBackend', 'MLflowRunBackend']
    assert second[1].init_kwargs.mode == 'offline' and second[1].init_kwargs.name == second[2].exp_name == 'next'
    assert 'tracking_uri' not in second[2]


def test_a_test_does_not_write_to_the_trackers_of_its_training():
    config = config_of('tensorboard')
    config.visualizer.vis_backends.append({'type': 'AimVisBackend'})  # without the key, backends stay
    use_trackers(config)
    drop_trackers(config)
    assert [part.type for part in config.visualizer.vis_backends] == ['LocalVisBackend', 'AimVisBackend']
    own = config_of(None)
    own.visualizer.vis_backends.append({'type': 'TensorboardVisBackend'})
    drop_trackers(own)
    assert len(own.visualizer.vis_backends) == 2


def test_scalars_are_written_if_the_config_has_no_visualizer():
    content = config_of('tensorboard').to_dict()
    del content['visualizer']
    config = Config(content)
    drop_trackers(config)
    use_trackers(config)
    assert [part.type for part in config.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    assert config.visualizer.type == 'mmseg.SegLocalVisualizer'
    del config.visualizer['vis_backends']
    use_trackers(config)
    assert config.visualizer.vis_backends[0].type == 'LocalVisBackend'


@pytest.mark.parametrize('names', [None, []])
def test_without_the_key_nothing_is_added(names):
    config = config_of(names)
    before = config.to_dict()
    use_trackers(config)
    assert config.to_dict() == before


def test_unknown_and_missing_trackers_are_named(monkeypatch):
    with pytest.raises(ConfigError, match="'tensorbord', which is not a known tracker. Did you mean tensorboard"):
        use_trackers(config_of(['tensorbord']))
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InstallationError, match='pip install wandb'):
        use_trackers(config_of('wandb'))
    monkeypatch.setattr(trackers.importlib.util, 'find_spec', lambda name: SimpleNamespace(origin=None))
    with pytest.raises(InstallationError, match='pip install wandb'):  # a folder of this name, not the package
        use_trackers(config_of('wandb'))
    with pytest.raises(ConfigError, match='trackers is 3'):
        check_settings(
            Config({'trackers': 3, 'model': {}, 'train_dataloader': {}, 'train_cfg': {}, 'optim_wrapper': {}}), 'train'
        )
