"""Tiny models with random values, a service on them, and files that are not photos."""

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_segmentors import shipped, write_checkpoint

from rass_mm.app.limits import Limits
from rass_mm.app.models import ModelFiles, load_models
from rass_mm.app.service import Service
from rass_mm.app.workspace import temporary_workspace

LIMITS = Limits(max_pixels=250_000, max_megabytes=1, max_files=6)


@pytest.fixture(scope='session')
def model_files(tiny_base, adapter, tmp_path_factory):
    folder = tmp_path_factory.mktemp('app-models')
    rass = shipped('rass/rass_scenes_tiny.py', **{'model.backbone.base': str(tiny_base)})
    checkpoint = write_checkpoint(folder / 'rass.pth', rass)
    baseline = write_checkpoint(folder / 'plain.pth', shipped('baselines/resnet_scenes_tiny.py'))
    return ModelFiles(adapter, tiny_base, checkpoint, baseline=baseline)


@pytest.fixture(scope='session')
def models(model_files):
    return load_models(model_files, device='cpu')


@pytest.fixture
def service(models, tmp_path):
    parent = tmp_path / 'temporary'
    parent.mkdir()
    with temporary_workspace(parent) as workspace:
        yield Service(models, LIMITS, workspace)


@pytest.fixture(scope='session')
def photo(tmp_path_factory):
    """A photo of an odd size."""
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 256, (9, 13, 3), np.uint8), (131, 90), interpolation=cv2.INTER_CUBIC)
    file = tmp_path_factory.mktemp('app-photos') / 'street.png'
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture(scope='session')
def hostile(tmp_path_factory):
    """Files that must be refused: name -> part of the message."""
    folder = tmp_path_factory.mktemp('hostile')
    (folder / 'notes.png').write_text('not an image')
    (folder / 'empty.png').write_bytes(b'')
    Image.new('1', (20_000, 20_000)).save(folder / 'huge.png')  # 400 megapixels in 50 kB
    Image.new('RGB', (200, 200), 'red').save(folder / 'cut.jpg')
    whole = (folder / 'cut.jpg').read_bytes()
    (folder / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (folder / 'script.svg').write_text('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>')
    (folder / 'heavy.bmp').write_bytes(b'BM' + bytes(1_500_000))
    messages = {
        **{'notes.png': 'not an image', 'empty.png': 'cannot be read', 'huge.png': '20000x20000', 'cut.jpg': 'cut.jpg'},
        **{'script.svg': 'not an image', 'heavy.bmp': '1 MB'},
    }
    return {folder / name: message for name, message in messages.items()}
