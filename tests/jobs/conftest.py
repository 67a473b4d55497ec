"""Tiny images, and restoration of them in shards with a fake network."""

from functools import partial

import numpy as np
import pytest
from PIL import Image
from sharded import restore_images


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """30 images in folders."""
    folder = tmp_path_factory.mktemp('photos')
    for number in range(30):
        path = folder / f'part {number % 3}' / f'image {number}.png'
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (9, 10 + number % 5, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'out'


@pytest.fixture
def restore(photos, out):
    """`restore_images` of the photos into `out`."""
    return partial(restore_images, photos, out)
