"""The folder `$FX` with tiny valid inputs, from which the cases make their faulty ones."""

import shutil
from pathlib import Path

import torch
from campaign.server import forked
from checkpoint_layouts import restorer_file
from PIL import Image

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet

SHORT = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2']
SMALL = ['train_dataloader.batch_size=2', 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
CLASSES = 12
PATIENCE = 600.0
"""Seconds for a command that makes a part of the kit, on a busy machine too."""
READY = 'ready with packs'
"""File in a complete kit. Another name has the kits of earlier contents made again."""


def data_options(folder: str = 'data', base: str | None = None) -> list[str]:
    """Returns the --cfg-options that point a tiny config to the data of the kit."""
    roots = [f'{split}_dataloader.dataset.data_root={folder}' for split in ('train', 'val', 'test')]
    return roots + ([] if base is None else [f'model.backbone.base={base}'])


def make_kit(folder: Path) -> Path:
    """Makes the kit, unless it is complete, and returns its folder.

    Contents: `data` (8 training and 4 validation scenes of 96x96 with degraded copies), `base`, `scr.pth`,
    `adapter.safetensors`, `rass.pth`, `resnet.pth`, `metrics.json`, `curve.json`, `benchmark.json`,
    `published.pkl` (in the layout of scr.pkl), `good.png` (64x64), `good.jpg` (96x64), and the packs `resnet-pack`,
    `rass-pack` (with its base) and `scr-pack`.
    """
    if (folder / READY).exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    data = [*data_options('data'), *SHORT, *SMALL]
    rass = ['rass/rass_scenes_tiny.py', 'baselines/resnet_scenes_tiny.py']
    few = ['--kinds', 'jpeg', '--severities', '1', '--name', 'curve']
    commands = [
        ['make-scenes', 'data', '--train', '8', '--val', '4', '--size', '96', '--workers', '1'],
        ['make-lq', 'data/img_dir/val', 'data/img_lq/val', '--workers', '1'],
        ['random-base', 'base', '--layout', 'scenes-tiny'],
        ['train', 'scr/scr_scenes_tiny.py', '--work-dir', 'scr', '--cfg-options', 'model.base=base', *data],
        ['train', rass[0], '--work-dir', 'rass', '--cfg-options', 'model.backbone.base=base', *data],
        ['train', rass[1], '--work-dir', 'resnet', '--cfg-options', *data],
        ['test', rass[1], 'resnet/iter_2.pth', '--work-dir', 'tested', '--cfg-options', *data],
        ['robustness', rass[1], 'resnet/iter_2.pth', '--out', 'curves', *few, '--cfg-options', *data],
        ['benchmark', rass[1], '--size', '64x64', '--iterations', '1', '--warmup', '1', '--out', 'speed'],
    ]
    for command in commands:
        _run(command, folder)
    for source, target in {
        'scr/iter_2.pth': 'scr.pth',
        'scr/scr_adapter.safetensors': 'adapter.safetensors',
        'rass/iter_2.pth': 'rass.pth',
        'resnet/iter_2.pth': 'resnet.pth',
        'tested/metrics.json': 'metrics.json',
        'curves/curve.json': 'curve.json',
        'speed/benchmark.json': 'benchmark.json',
    }.items():
        shutil.copy(folder / source, folder / target)
    for name in ('scr', 'rass', 'resnet', 'tested', 'curves', 'speed'):
        shutil.rmtree(folder / name)
    first, second = sorted((folder / 'data' / 'img_dir' / 'val').glob('*.*'))[:2]
    Image.open(first).resize((64, 64)).save(folder / 'good.png')
    Image.open(second).resize((96, 64)).save(folder / 'good.jpg')
    torch.save(restorer_file(load_unet(read_base(folder / 'base'))), folder / 'published.pkl')
    _run(['pack', 'resnet.pth', 'resnet-pack', '--metrics', 'metrics.json'], folder)
    _run(['pack', 'rass.pth', 'rass-pack', '--with-base', '--base', 'base'], folder)
    _run(['pack', 'adapter.safetensors', 'scr-pack', '--base', 'base'], folder)
    (folder / READY).touch()
    return folder


def _run(command: list[str], folder: Path) -> None:
    from rass_mm_cli.main import main

    outcome = forked(lambda: main(command), folder, folder / 'kit.log', folder / 'kit.canary', limit=PATIENCE)
    if outcome.status:
        raise RuntimeError(f'rass-mm {" ".join(command)} ended with {outcome.status}:\n{outcome.text[-3000:]}')
