"""Label maps on a CPU do not depend on the run, on the number of workers, on batches or on the clock."""

import time

import pytest
from campaign import server
from campaign.kit import data_options

pytestmark = pytest.mark.slow
CONFIGS = {'rass': 'rass/rass_scenes_tiny.py', 'resnet': 'baselines/resnet_scenes_tiny.py'}
VARIANTS = {
    'again': (0, 1),
    'two workers': (2, 1),
    'four workers': (4, 1),
    'batches of three': (0, 3),
}


@pytest.fixture(scope='module')
def run(kit):
    from rass_mm_cli.main import main

    def run(folder, *command, before=None):
        def call():
            if before:
                before()
            return main([*map(str, command)])

        folder.mkdir(exist_ok=True)
        outcome = server.forked(call, folder, folder / 'log', folder / 'canary')
        assert outcome.status == 0, outcome.text[-3000:]

    return run


def files(folder, pattern='**/*.png'):
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(pattern))}
    assert found
    return found


@pytest.mark.parametrize('name', CONFIGS)
def test_label_maps_of_a_test_are_the_same(name, kit, run, tmp_path):
    def tested(variant, workers, batch):
        folder = tmp_path / variant.replace(' ', '_')
        options = [f'test_dataloader.{key}' for key in (f'num_workers={workers}', f'batch_size={batch}')]
        options += ['test_dataloader.persistent_workers=False', *data_options(kit / 'data')]
        options += [f'model.backbone.base={kit / "base"}'] * (name == 'rass')
        command = ['test', CONFIGS[name], kit / f'{name}.pth', '--out', 'maps', '--work-dir', 'work']
        run(folder, *command, '--cfg-options', *options)
        return files(folder / 'maps')

    first = tested('first', 0, 1)
    assert len(first) == 4
    for variant, settings in VARIANTS.items():
        assert tested(variant, *settings) == first, variant


@pytest.mark.parametrize('name', CONFIGS)
def test_windows_in_batches_give_the_same_labels(name, kit, run, tmp_path):
    source = kit / 'data' / 'img_dir' / 'val'
    for batch in (1, 4):
        folder = tmp_path / str(batch)
        windows = ['--mode', 'windows', '--window', '64', '--overlap', '32', '--batch-size', batch, '--device', 'cpu']
        windows += ['--base', kit / 'base'] * (name == 'rass')
        run(folder, 'segment', source, 'out', '--checkpoint', kit / f'{name}.pth', *windows)
    assert files(tmp_path / '1' / 'out' / 'labels') == files(tmp_path / '4' / 'out' / 'labels')


def _backwards():
    now = iter(range(2_000_000_000, 0, -100))
    time.time = lambda: next(now)


@pytest.mark.parametrize('command', ['make-lq', 'segment', 'train'])
def test_a_clock_that_goes_backwards_changes_nothing(command, kit, run, tmp_path):
    source, checkpoint = kit / 'data' / 'img_dir' / 'val', kit / 'resnet.pth'
    data = [*data_options(kit / 'data'), 'train_cfg.max_iters=2', 'train_cfg.val_interval=2']
    data += ['train_dataloader.batch_size=2', 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
    arguments = {
        'make-lq': [source, 'out', '--workers', '1'],
        'segment': [source, 'out', '--checkpoint', checkpoint, '--device', 'cpu'],
        'train': [CONFIGS['resnet'], '--work-dir', 'out', '--cfg-options', *data],
    }[command]
    for folder, before in (('forwards', None), ('backwards', _backwards)):
        run(tmp_path / folder, command, *arguments, before=before)
        run(tmp_path / folder, command, *arguments, before=before)  # finished work is recognized
    if command != 'train':
        assert files(tmp_path / 'forwards' / 'out') == files(tmp_path / 'backwards' / 'out')
