"""Tiny models, photos, and what they are exported to."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from export_settings import CONFIGS, LIBRARIES, WINDOW
from pictures import pictures
from PIL import Image
from tiny_segmentors import shipped, write_checkpoint

from rass_mm_cli.main import main


@pytest.fixture(scope='session')
def models(tiny_base, adapter, tmp_path_factory):
    """Function that returns the file of a model: a name of `CONFIGS`, or 'restorer'."""
    folder, made = tmp_path_factory.mktemp('checkpoints'), {'restorer': adapter}

    def model(name):
        if name not in made:
            base = {} if name == 'plain' else {'model.backbone.base': str(tiny_base)}
            made[name] = write_checkpoint(folder / f'{name}.pth', shipped(CONFIGS[name], **base))
        return made[name]

    return model


@pytest.fixture(scope='session')
def exports(models, tiny_base, tmp_path_factory):
    """Function that exports a model once and returns the folder: `exports('plain', 'onnx', 'float16')`."""
    made = {}

    def export(name, form, dtype='float32', *options):
        for library in LIBRARIES[form]:
            pytest.importorskip(library)
        key = (name, form, dtype, *options)
        if key not in made:
            made[key] = tmp_path_factory.mktemp('exported') / '-'.join((name, form, dtype))
            base = ('--base', tiny_base) if name == 'restorer' else ()
            given = (models(name), made[key], '--format', form, '--window', WINDOW, *base, *options)
            precision = ('--int8',) if dtype == 'int8' else ('--dtype', dtype)
            assert main(['export', *map(str, (*given, *precision))]) == 0
        return made[key]

    return export


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """Folder with a photo larger than a window, one as large as a window, and one turned by EXIF."""
    scenes = pictures(tmp_path_factory)
    folder = tmp_path_factory.mktemp('photos')
    scenes[0].save(folder / 'wide.png')
    scenes[1].crop((0, 0, WINDOW, WINDOW)).save(folder / 'window.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    scenes[2].crop((0, 0, 140, 100)).save(folder / 'turned.jpg', quality=95, exif=exif)
    return folder


@pytest.fixture
def places(tmp_path):
    """Output folders of a test."""
    return SimpleNamespace(torch=Path(tmp_path / 'torch'), exported=Path(tmp_path / 'exported'))
