"""Tiny trained segmentors and a folder of photos."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pictures import pictures
from PIL import Image
from tiny_segmentors import shipped, write_checkpoint

TURNED = 6
"""EXIF orientation of a photo taken in portrait."""


@pytest.fixture(scope='session')
def trained(tiny_base, tmp_path_factory):
    """Checkpoint and config of a baseline and of RASS: `plain`, `rass`."""
    folder, made = tmp_path_factory.mktemp('checkpoints'), {}
    configs = {
        'plain': shipped('baselines/resnet_scenes_tiny.py'),
        'rass': shipped('rass/rass_scenes_tiny.py', **{'model.backbone.base': str(tiny_base)}),
    }
    for name, config in configs.items():
        made[name] = SimpleNamespace(file=write_checkpoint(folder / f'{name}.pth', config), config=config)
    return SimpleNamespace(**made)


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """Photos of odd sizes in many formats, one turned by EXIF, and a text file."""
    scenes = pictures(tmp_path_factory)
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'sub').mkdir()
    scenes[0].crop((0, 0, 75, 91)).save(folder / 'a.png')
    scenes[1].convert('L').crop((0, 0, 96, 50)).save(folder / 'grey.png')
    scenes[0].crop((0, 0, 97, 33)).save(folder / 'sub' / 'b.webp', quality=95)
    exif = Image.Exif()
    exif[0x0112] = TURNED
    scenes[2].crop((0, 0, 90, 60)).save(folder / 'sub' / 'turned.jpg', quality=95, exif=exif)
    alpha = np.full((110, 150), 128, np.uint8)
    Image.fromarray(np.dstack([np.asarray(scenes[1]), alpha])).save(folder / 'wide.png')  # larger than a window
    cv2.imwrite(str(folder / 'deep.png'), np.asarray(scenes[2])[:64, :64, ::-1].astype(np.uint16) * 257)
    (folder / 'notes.txt').write_text('not an image')
    return folder
