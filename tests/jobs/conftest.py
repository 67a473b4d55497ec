"""Tiny images, restoration of them in shards with a fake network, and what the three commands make of some."""

import os
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from packed import degraded, files_of, images_in, restored
from PIL import Image
from sharded import COMMANDS, command_on, restore_images, write_images
from tiny_segmentors import shipped, write_checkpoint

from rass_mm.files.containers.kinds import KINDS, write_container
from rass_mm.jobs import packing


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


@pytest.fixture(scope='session')
def kit(tmp_path_factory, tiny_base, adapter):
    """Images, the options of each command, and the folder that one process makes of them, by command."""
    folder = tmp_path_factory.mktemp('kit')
    images = write_images(folder / 'images', 9)
    checkpoint = write_checkpoint(folder / 'plain.pth', shipped('baselines/resnet_scenes_tiny.py'))
    options = {
        'segment': ['--checkpoint', checkpoint, '--device', 'cpu'],
        'restore': ['--adapter', adapter, '--base', tiny_base, '--window', 32, '--overlap', 0, '--device', 'cpu'],
        'make-lq': ['--workers', '1'],
    }
    kit = SimpleNamespace(images=images, options=options, one={})
    for command in COMMANDS:
        kit.one[command] = folder / command
        assert command_on(kit, command, kit.one[command]) == 0
    return kit


@pytest.fixture
def temporary(tmp_path_factory):
    """Short folder for temporary files, of which Ray leaves none."""
    folder = Path('/tmp') / f'r{os.getpid()}'
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def small_packs(monkeypatch):
    """Packs of four images."""
    monkeypatch.setattr(packing, 'MOST_IMAGES', 4)


@pytest.fixture(scope='session')
def sources(photos, tmp_path_factory):
    """The photos as a folder, a tar file, a Parquet file, and a folder of both."""
    folder, files = tmp_path_factory.mktemp('sources'), files_of(photos)
    both = folder / 'both'
    both.mkdir()
    for kind, part in zip(KINDS, (files[:13], files[13:]), strict=True):
        write_container(folder / f'photos.{kind}', files)
        write_container(both / f'part.{kind}', part)
    return {'folder': photos, **{kind: folder / f'photos.{kind}' for kind in KINDS}, 'both': both}


@pytest.fixture(scope='session')
def expected(photos, tmp_path_factory):
    """The images that the jobs make of the folder."""
    folder = tmp_path_factory.mktemp('expected')
    restored(photos, folder / 'restored')
    degraded(photos, folder / 'degraded')
    return {job: images_in(folder / job.__name__) for job in (restored, degraded)}
