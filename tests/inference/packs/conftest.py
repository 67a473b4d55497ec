"""Trained tiny models, and packs of them."""

from types import SimpleNamespace

import pytest
from pictures import pictures
from tiny_segmentors import shipped, write_checkpoint

from rass_mm_cli.main import main

R2S = 'baselines/resnet_scenes_tiny_r2s.py'


@pytest.fixture(scope='session')
def models(tiny_base, adapter, tmp_path_factory):
    """Files: `plain` (ResNet), `rass` (with a merged SCR adapter), `r2s` (restorer and ResNet), `restorer`."""
    folder = tmp_path_factory.mktemp('models')
    rass = {'model.backbone.base': str(tiny_base), 'model.backbone.scr_adapter': str(adapter)}
    both = {'model.restorer.base': str(tiny_base), 'model.restorer.adapter': str(adapter)}
    return SimpleNamespace(
        plain=write_checkpoint(folder / 'plain.pth', shipped('baselines/resnet_scenes_tiny.py')),
        rass=write_checkpoint(folder / 'rass.pth', shipped('rass/rass_scenes_tiny.py', **rass)),
        r2s=write_checkpoint(folder / 'r2s.pth', shipped(R2S, **both)),
        restorer=adapter,
    )


@pytest.fixture(scope='session')
def make(models, tiny_base, tmp_path_factory):
    """Function (name, *options) that packs a model once and returns the folder, which tests must not change."""
    made = {}

    def pack(name, *options):
        if (name, options) not in made:
            folder = tmp_path_factory.mktemp('packs') / name
            base = ('--base', tiny_base) if name == 'restorer' else ()
            assert main(['pack', *map(str, (getattr(models, name), folder, *base, *options))]) == 0
            made[name, options] = folder
        return made[name, options]

    return pack


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """Folder with two photos, one of them larger than a window."""
    scenes = pictures(tmp_path_factory)
    folder = tmp_path_factory.mktemp('photos')
    scenes[0].save(folder / 'wide.png')
    scenes[1].crop((0, 0, 70, 90)).save(folder / 'small.png')
    return folder
