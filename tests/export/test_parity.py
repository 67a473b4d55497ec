"""Exported networks of all kinds, formats and precisions beside the models in PyTorch, and without PyTorch."""

import json
import os
import shutil
import subprocess
import venv
from importlib.metadata import distribution

import numpy as np
import pytest
import torch
from commands import ROOT
from export_settings import CONFIGS, WINDOW
from PIL import Image

from rass_mm.diffusion.restorer import load_restorer
from rass_mm.engine.ready import Preparation, prepare
from rass_mm.export.formats import format_module
from rass_mm.export.networks import RestorerNetwork, SegmentorNetwork, example_window
from rass_mm.inference.loading import read_segmentor
from rass_mm_cli.main import main

pytestmark = pytest.mark.slow
FLOAT32 = 1e-3
LOSS = {'float16': 1e-2, 'bfloat16': 0.1}
"""Largest relative difference of random weights that are rounded to 16 bits."""
FORMATS, KINDS = ('openvino', 'onnx', 'pt2'), (*CONFIGS, 'restorer')
RUNTIMES = {
    'openvino': ['openvino', 'openvino-telemetry', 'numpy', 'pillow'],
    'onnx': ['onnxruntime', 'flatbuffers', 'protobuf', 'numpy', 'pillow'],
}
"""Packages that the script in the docs needs."""


def prepared_network(models, tiny_base, name):
    """The network of a model that `rass_mm.engine.ready.prepare` has prepared, as `segment` and `restore` do."""
    how = Preparation(pack=False)
    if name == 'restorer':
        return RestorerNetwork(prepare(load_restorer(models(name), tiny_base), how))
    return SegmentorNetwork(read_segmentor(models(name)).build(torch.device('cpu'), how).model)


@pytest.mark.parametrize('name', KINDS)
@pytest.mark.parametrize('form', FORMATS)
def test_float32_networks_equal_the_prepared_model(models, exports, tiny_base, form, name):
    folder = exports(name, form)
    images = example_window((WINDOW, WINDOW), seed=7)  # not the window that the export compares
    with torch.no_grad():
        expected = prepared_network(models, tiny_base, name)(images).numpy()
    found = format_module(form).load(folder, 'float32').run(images.numpy())
    assert np.abs(found - expected).max() <= FLOAT32 * np.abs(expected).max()
    assert expected.std() > 1e-3 * np.abs(expected).max()
    for file in folder.iterdir():
        content = file.read_bytes()
        assert str(ROOT).encode() not in content and b'site-packages' not in content, f'{file} contains local paths'
    if name != 'restorer':
        assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.999


@pytest.mark.parametrize('name', ['upernet', 'restorer'])
@pytest.mark.parametrize('dtype', LOSS)
@pytest.mark.parametrize('form', FORMATS)
def test_weights_in_16_bits_halve_the_files(exports, form, dtype, name):
    whole, half = (
        sum(file.stat().st_size for file in exports(name, form, kind).glob('model.*') if file.suffix != '.xml')
        for kind in ('float32', dtype)
    )
    assert 0.4 < half / whole < 0.62
    about = json.loads((exports(name, form, dtype) / 'metadata.json').read_text())
    assert 0 < about['parity']['relative'] <= LOSS[dtype] and about['dtype'] == dtype


@pytest.mark.parametrize('form', ['openvino', 'onnx'])
def test_int8_is_smaller_and_similar(exports, photos, form):
    pytest.importorskip('nncf')
    whole, small = exports('upernet', form), exports('upernet', form, 'int8', '--calibration', photos)
    size = {folder: sum(file.stat().st_size for file in folder.glob('model.*')) for folder in (whole, small)}
    assert size[small] < 0.6 * size[whole]
    about = json.loads((small / 'metadata.json').read_text())
    assert about['dtype'] == 'int8' and 0 < about['parity']['relative'] < 0.5


@pytest.mark.parametrize('form', ['openvino', 'onnx'])
def test_photos_are_restored_as_by_the_model(models, exports, tiny_base, photos, places, form):
    window = ('--window', WINDOW, '--overlap', 32)
    given = ('restore', photos, places.torch, '--adapter', models('restorer'), '--base', tiny_base, *window)
    assert main([*map(str, given), '--dtype', 'float32', '--device', 'cpu']) == 0
    given = ('restore', photos, places.exported, '--adapter', exports('restorer', form), '--backend', form)
    assert main([*map(str, given), '--overlap', '32']) == 0
    for name in ('wide.png', 'window.png', 'turned.jpg'):
        one, other = (np.asarray(Image.open(out / name)).astype(int) for out in (places.torch, places.exported))
        assert np.abs(one - other).max() <= (1 if name.endswith('png') else 8), name
    header = json.loads((places.exported / 'manifest.jsonl').read_text().splitlines()[0])
    assert header['model']['backend'] == form


def environment_with(folder, names):
    """Creates an environment with copies of these installed packages only. Returns its interpreter."""
    venv.create(folder)
    (target,) = folder.glob('lib/python*/site-packages')
    for name in names:
        found = distribution(name)
        for file in found.files:
            if '..' not in file.parts and '__pycache__' not in file.parts:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found.locate_file(file), target / file)
    return folder / 'bin' / 'python'


@pytest.mark.parametrize('form', ['openvino', 'onnx'])
def test_the_script_runs_without_torch(exports, photos, places, tmp_path, form):
    exports('plain', form)  # skips the test if a library is not installed
    program = environment_with(tmp_path / 'environment', RUNTIMES[form])
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    lacking = subprocess.run([program, '-c', 'import torch'], env=environment, capture_output=True, text=True)
    assert 'ModuleNotFoundError' in lacking.stderr
    for name, command, option in (
        ('plain', 'segment', '--checkpoint'),
        ('upernet', 'segment', '--checkpoint'),
        ('restorer', 'restore', '--adapter'),
    ):
        exported, out = exports(name, form), tmp_path / f'{name}.png'
        # one window for a restorer, because the script averages windows without ramps
        photo = photos / ('window.png' if name == 'restorer' else 'wide.png')
        script = [program, ROOT / 'docs' / 'run_exported.py', exported, photo, out]
        subprocess.run(script, check=True, env=environment, timeout=600)
        given = (command, photo, places.exported / name, option, exported, '--backend', form)
        assert main([*map(str, given)]) == 0
        made = places.exported / name
        files = (out, made / photo.name if name == 'restorer' else made / 'labels' / photo.name)
        found, expected = (np.asarray(Image.open(file)).astype(int) for file in files)
        if name == 'restorer':
            assert np.abs(found - expected).max() <= 1
        else:
            assert (found == expected).mean() >= 0.999
