"""Writes the files that the README names: photos, a restorer, its base and, on request, a segmentor.

Their weights are random, except those of the base.

It runs in the environment that is checked: python files_of_readme.py FOLDER [--segmentor]
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rass_mm.demo.base.shipped import shipped_base
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.one_step_restorer import OneStepRestorer

BASE = 'bases/stable-diffusion-2-1-base'
CLASSES = ['road', 'car', 'sky']


def write_photos(folder: Path) -> None:
    """Writes two photos to `photos/`, and `street.jpg` and `street.png`."""
    (folder / 'photos').mkdir()
    for index, name in enumerate(('photos/one.png', 'photos/two.jpg', 'street.jpg', 'street.png')):
        pixels = np.random.default_rng(index).integers(0, 255, (72, 100, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def write_restorer(folder: Path) -> None:
    """Writes the base of the package to `BASE`, and a restorer with random weights to `scr_adapter.safetensors`."""
    shutil.copytree(shipped_base(), folder / BASE)
    base = read_base(folder / BASE)
    torch.manual_seed(0)
    OneStepRestorer(base).save(folder / 'scr_adapter.safetensors', base.identity, 'ClassTokens', CLASSES)


def write_segmentor(folder: Path) -> None:
    """Writes a checkpoint of the small RASS model with random weights to `work_dirs/rass/iter_160000.pth`."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmseg.registry import DATASETS, MODELS

    import rass_mm

    config = Config.fromfile(str(rass_mm.config_path('rass/rass_scenes_tiny.py')))
    config.merge_from_dict({'model.backbone.base': str(folder / BASE)})
    init_default_scope('mmseg')
    model, known = MODELS.build(config.model), DATASETS.get('ScenesDataset').METAINFO
    meta = {'cfg': config.pretty_text, 'dataset_meta': {name: list(known[name]) for name in ('classes', 'palette')}}
    target = folder / 'work_dirs' / 'rass' / 'iter_160000.pth'
    target.parent.mkdir(parents=True)
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, target)


if __name__ == '__main__':
    place = Path(sys.argv[1])
    write_photos(place)
    write_restorer(place)
    if '--segmentor' in sys.argv:
        write_segmentor(place)
