"""Benchmark of exported models beside the same models in PyTorch."""

import json
import shutil

import pytest
from export_settings import WINDOW

from rass_mm_cli.main import main

PLAIN = 'baselines/resnet_scenes_tiny.py'
RESTORER = 'scr/scr_scenes_tiny.py'


def benchmark(out, config, *options):
    """Runs the benchmark; returns its record, or None if it failed."""
    size = f'{2 * WINDOW}x{WINDOW}'
    given = [config, '--size', size, '--iterations', 1, '--warmup', 1, '--batch', 2, '--out', out, *options]
    return json.loads((out / 'benchmark.json').read_text()) if main(['benchmark', *map(str, given)]) == 0 else None


@pytest.fixture(scope='module')
def record(exports, tmp_path_factory):
    folder = exports('plain', 'onnx')
    return benchmark(tmp_path_factory.mktemp('speed'), PLAIN, '--variant', f'exported: {folder}')


def test_an_exported_segmentor_runs_beside_its_config(record, exports):
    plain, exported = record['variants']
    assert (exported['name'], exported['exported'], plain['exported']) == ('exported', True, False)
    assert list(exported['stages']) == ['network', 'other']
    assert exported['seconds']['median'] > 0 and exported['stages']['network']['share'] > 0.5
    assert exported['tflop_per_image'] is None and exported['parameters'] == {} and plain['parameters']['all'] > 0
    files = exports('plain', 'onnx').glob('model.onnx*')
    assert exported['memory']['weights_bytes'] == sum(file.stat().st_size for file in files)
    assert 'onnx with weights in float32; operations are not counted' in exported['notes'][0]
    assert [ratio['variant'] for ratio in record['ratios']] == ['exported']


def test_a_report_has_a_row_for_an_exported_model(record, tmp_path, capsys):
    (tmp_path / 'benchmark.json').write_text(json.dumps(record))
    assert main(['report', str(tmp_path)]) == 0
    lines = [[cell.strip() for cell in line.split('|')[1:-1]] for line in capsys.readouterr().out.splitlines()]
    header = next(cells for cells in lines if 'parameters (M)' in cells)
    rows = {cells[0]: dict(zip(header, cells, strict=True)) for cells in lines if len(cells) == len(header)}
    exported, plain = rows['exported'], rows[record['variants'][0]['name']]
    assert float(exported['images/s']) > 0 and float(exported['times as fast']) > 0
    for column in ('parameters (M)', 'trained (M)'):
        assert exported[column] == '' and float(plain[column]) > 0


def test_each_image_runs_once_per_window(exports, monkeypatch, tmp_path):
    from rass_mm.export import onnx_format

    calls, load = [], onnx_format.load

    def counting(*given):
        network = load(*given)
        return network._replace(run=lambda images: (calls.append(images.shape), network.run(images))[1])

    monkeypatch.setattr(onnx_format, 'load', counting)
    folder = exports('plain', 'onnx')
    stride = json.loads((folder / 'metadata.json').read_text())['stride'][0]
    assert benchmark(tmp_path, PLAIN, '--variant', f'exported: {folder}')
    windows = 1 + -(-WINDOW // stride)  # along the side of two windows
    assert len(calls) == 4 * 2 * windows  # four passes over two images
    assert set(calls) == {(1, 3, WINDOW, WINDOW)}


@pytest.mark.slow
def test_an_exported_restorer_runs_in_windows(exports, tiny_base, tmp_path):
    folder = exports('restorer', 'onnx')
    base = f'model.base={tiny_base}'
    record = benchmark(tmp_path, RESTORER, '--variant', f'exported: {folder}', '--cfg-options', base)
    assert record['variants'][1]['stages']['network']['seconds'] > 0


@pytest.mark.parametrize(
    ('variant', 'message'),
    [
        ('{folder} dtype=bfloat16', 'an exported model has no options'),
        ('{folder} --size', 'an exported model has no options'),
        ('{damaged}', 'is damaged'),
    ],
)
def test_wrong_variants_are_refused(variant, message, exports, tmp_path, capsys):
    folder = exports('plain', 'onnx')
    damaged = shutil.copytree(folder, tmp_path / 'damaged')
    (damaged / 'model.onnx').write_bytes(b'x')
    text = f'exported: {variant.format(folder=folder, damaged=damaged)}'
    assert benchmark(tmp_path / 'out', PLAIN, '--variant', text) is None
    assert message in capsys.readouterr().err


def test_images_smaller_than_a_window_are_refused(exports, tmp_path, capsys):
    folder, half = exports('plain', 'onnx'), f'64x{WINDOW}'
    assert benchmark(tmp_path, PLAIN, '--variant', f'exported: {folder}', '--size', half) is None
    assert f'--size {half}: the windows of exported have {WINDOW}x{WINDOW} pixels' in capsys.readouterr().err
