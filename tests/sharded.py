"""Tiny images, their restoration in shards with a fake network, and the three commands that divide a job."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from rass_mm.diffusion.restorer import load_restorer
from rass_mm.files.verified import VERIFIED
from rass_mm.inference import RestoreOptions, restore_files
from rass_mm.jobs.shard import Shard
from rass_mm_cli.main import main

COMMANDS = ('segment', 'restore', 'make-lq')


class Fake:
    """Fake restorer that darkens images. `stop` raises the exception at this call."""

    size_multiple = 16

    def __init__(self, stop=None, error=KeyboardInterrupt):
        self.calls, self.stop, self.error = 0, stop, error

    def __call__(self, images):
        self.calls += 1
        if self.calls == self.stop:
            raise self.error
        return (images - 1) / 2


def restore_images(photos, out, number=None, count=4, fake=None, model=None, **options):
    """Restores all images, or one shard of them; returns the summary."""
    options = RestoreOptions(**{'window': 64, 'overlap': 16, **options})
    shard = None if number is None else Shard(number, count)
    fake = fake or Fake()
    return restore_files(photos, out, lambda: fake, options, model, shard=shard)


class Logged:
    """Restorer that appends the id of its process to a file for each call, i.e. for each tiny image."""

    def __init__(self, log, restorer):
        self.log, self.restorer, self.size_multiple = log, restorer, restorer.size_multiple

    def __call__(self, images):
        with open(self.log, 'a') as file:
            file.write(f'{os.getpid()}\n')
        return self.restorer(images)


def logged(log, adapter=None, base=None):
    """Loads a restorer, or the fake one, whose calls are logged."""
    return Logged(log, load_restorer(adapter, base, device='cpu') if adapter else Fake())


def write_images(folder, count):
    """Writes images of 8x8 to 12x10 pixels; returns the folder."""
    for number in range(count):
        path = folder / f'{number % 3}' / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8 + number % 5, 10, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


def command_on(kit, command, out, *options):
    return main([command, *map(str, (kit.images, out, *kit.options[command], *options))])


def contents(folder):
    """The bytes of all files, except the modification times, which are never the same."""
    files = (path for path in Path(folder).rglob('*') if path.is_file() and path.name != VERIFIED)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
