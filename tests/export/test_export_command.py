"""`rass-mm export`, and `segment` and `restore` with what it writes, beside the same models in PyTorch."""

import json
import shutil
import sys

import numpy as np
import pytest
from commands import ROOT, python
from export_settings import WINDOW
from PIL import Image

from rass_mm.files.hashing import file_sha256
from rass_mm.files.locks import held_beside
from rass_mm_cli.main import main

SCRIPT = ROOT / 'docs' / 'run_exported.py'
EQUAL = 0.999
"""Share of pixels that have the same label. Others have two classes of equal probability."""
FORMATS = ('openvino', pytest.param('onnx', marks=pytest.mark.slow))
by_format = pytest.mark.parametrize('form', FORMATS)


def run(*arguments):
    return main([str(argument) for argument in arguments])


def pixels(file):
    return np.asarray(Image.open(file))


def agreement(one, other):
    assert one.shape == other.shape
    return (one == other).mean()


def segment(photos, out, checkpoint, *options):
    return run('segment', photos, out, '--checkpoint', checkpoint, *options)


def check_labels(photos, places, checkpoint, exported, form):
    """Compares the labels of an exported model with those of the model in windows of the same size."""
    windows = ('--window', WINDOW, '--dtype', 'float32', '--device', 'cpu')
    assert segment(photos, places.torch, checkpoint, *windows, '--confidence') == 0
    assert segment(photos, places.exported, exported, '--backend', form, '--confidence') == 0
    for name in ('wide', 'window', 'turned'):
        one, other = (pixels(out / 'labels' / f'{name}.png') for out in (places.torch, places.exported))
        assert agreement(one, other) >= EQUAL, name
        one, other = (pixels(out / 'confidence' / f'{name}.png') for out in (places.torch, places.exported))
        assert np.abs(one.astype(int) - other).max() <= 1, name
    return len(np.unique(one))


@by_format
def test_labels_are_those_of_the_model(models, exports, photos, places, form):
    exported = exports('plain', form)
    check_labels(photos, places, models('plain'), exported, form)
    header = json.loads((places.exported / 'manifest.jsonl').read_text().splitlines()[0])
    described = json.loads((exported / 'metadata.json').read_text())
    assert header['model']['backend'] == form == described['format']
    name, file = next(iter(described['files'].items()))
    assert header['model']['files'][name] == file['sha256'][:16] == file_sha256(exported / name)[:16]
    assert described['parity']['relative'] <= 1e-3 and described['input'] == [1, 3, WINDOW, WINDOW]
    assert ('opset' in described) == (form == 'onnx')


@by_format
def test_the_script_in_the_docs_gives_the_same_labels(exports, photos, places, form):
    exported = exports('plain', form)
    assert segment(photos / 'wide.png', places.exported, exported, '--backend', form) == 0
    done = python(SCRIPT, exported, photos / 'wide.png', places.torch.with_suffix('.png'))
    assert done.returncode == 0, done.stderr
    found, expected = (
        Image.open(file) for file in (places.torch.with_suffix('.png'), places.exported / 'labels' / 'wide.png')
    )
    assert agreement(np.asarray(found), np.asarray(expected)) >= EQUAL
    assert found.getpalette()[:36] == expected.getpalette()[:36]
    assert len(SCRIPT.read_text().splitlines()) <= 60


@by_format
def test_a_small_photo_is_padded_to_a_window(exports, photos, places, form):
    Image.open(photos / 'window.png').crop((0, 0, 70, 40)).save(places.torch.with_suffix('.png'))
    assert segment(places.torch.with_suffix('.png'), places.exported, exports('plain', form), '--backend', form) == 0
    assert pixels(places.exported / 'labels' / f'{places.torch.name}.png').shape == (40, 70)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--backend', 'onnx'], ["'openvino'", '--backend openvino']),
        (['--backend', 'openvino', '--window', '64', '--dtype', 'float32'], ['--window, --dtype', 'Remove them']),
        (['--backend', 'openvino', '--mode', 'whole'], ['windows only']),
        (['--backend', 'openvino', '--overlap', WINDOW], ['must be less than the window']),
    ],
)
def test_unsuitable_options_are_named(exports, photos, places, capsys, options, words):
    assert segment(photos, places.exported, exports('plain', 'openvino'), *options) == 1
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not places.exported.exists() or not (places.exported / 'labels' / 'wide.png').exists()


def test_a_segmentor_does_not_restore(exports, photos, places, capsys):
    exported = exports('plain', 'openvino')
    assert run('restore', photos, places.exported, '--adapter', exported, '--backend', 'openvino') == 1
    assert 'Use rass-mm segment' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda about: about.pop('stride'), 'the key stride is missing'),
        (lambda about: about['classes']['names'].pop(), '12 class names'),
        (lambda about: about.update(stride=[WINDOW + 1, 1]), 'at most the window'),
        (lambda about: about['output'].__setitem__(3, 1), 'an output of shape [1, C, h, w]'),
        (lambda about: about['input'].__setitem__(2, 10**9), 'input.2'),
        (lambda about: [about[key].__setitem__(2, 2 * WINDOW) for key in ('input', 'output')], 'has the shape'),
        (lambda about: about.update(files={'../model.xml': {}}), '../model.xml'),
        (lambda about: about['classes'].update(pipeline=[{'type': 'os.system', 'command': 'false'}]), 'os.system'),
    ],
)
def test_metadata_of_others_are_checked(exports, photos, places, tmp_path, capsys, change, words):
    folder = shutil.copytree(exports('plain', 'openvino'), tmp_path / 'copy')
    about = json.loads((folder / 'metadata.json').read_text())
    change(about)
    (folder / 'metadata.json').write_text(json.dumps(about))
    assert segment(photos, places.exported, folder, '--backend', 'openvino') == 1
    message = capsys.readouterr().err
    assert words in message and str(folder) in message and 'Export the model again' in message


def test_a_damaged_file_is_named(exports, photos, places, tmp_path, capsys):
    folder = shutil.copytree(exports('plain', 'openvino'), tmp_path / 'copy')
    data = bytearray((folder / 'model.bin').read_bytes())
    data[len(data) // 2] ^= 1
    (folder / 'model.bin').write_bytes(data)
    assert segment(photos, places.exported, folder, '--backend', 'openvino') == 1
    assert f'{folder / "model.bin"} is damaged' in capsys.readouterr().err
    (folder / 'model.bin').unlink()
    assert segment(photos, places.exported, folder, '--backend', 'openvino') == 1
    assert f'{folder / "model.bin"} is missing' in capsys.readouterr().err


def test_an_export_is_kept_and_another_is_refused(models, exports, capsys, tmp_path):
    folder = shutil.copytree(exports('plain', 'openvino'), tmp_path / 'copy')
    before = (folder / 'metadata.json').stat().st_mtime_ns
    given = ('export', models('plain'), folder, '--format', 'openvino', '--window', WINDOW)
    assert run(*given) == 0 and (folder / 'metadata.json').stat().st_mtime_ns == before
    assert run(*given, '--dtype', 'float16') == 1
    assert 'with other options' in capsys.readouterr().err
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'notes.txt').write_text('mine')
    assert run('export', models('plain'), tmp_path / 'mine', '--format', 'openvino') == 1
    assert 'already exists and is not overwritten' in capsys.readouterr().err


def test_an_export_in_progress_is_not_disturbed(models, exports, tmp_path, capsys):
    exports('plain', 'openvino')  # skips the test if the library is not installed
    given = ('export', models('plain'), tmp_path / 'out', '--format', 'openvino', '--window', WINDOW)
    with held_beside(tmp_path / 'out'):
        assert run(*given) == 1
    assert 'out is in use by' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--int8'], '--calibration'),
        (['--calibration', '.'], 'Add --int8'),
        (['--int8', '--calibration', 'absent'], 'absent is not a folder'),
        (['--window', '1000000'], 'from 1 to'),
        (['--autoencoder', 'tiny'], 'Remove --autoencoder'),
        (['--autoencoder-ends', 'both'], 'Remove --autoencoder'),
    ],
)
def test_wrong_options_write_nothing(models, tmp_path, capsys, options, words):
    try:
        code = run('export', models('plain'), tmp_path / 'out', '--format', 'openvino', *options)
    except SystemExit as end:
        code = end.code
    assert code in (1, 2) and words in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_restorer_needs_its_base(models, tmp_path, capsys):
    assert run('export', models('restorer'), tmp_path / 'out', '--format', 'openvino') == 1
    assert 'Set --base' in capsys.readouterr().err


def test_a_missing_library_is_named_with_its_remedy(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    monkeypatch.delitem(sys.modules, 'rass_mm.export.openvino_format', raising=False)
    assert run('export', models('plain'), tmp_path / 'out', '--format', 'openvino') == 1
    assert 'pip install "rass_mm[export]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
