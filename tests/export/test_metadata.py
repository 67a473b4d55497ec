"""Metadata of exported models that are written by hand: what they must contain, and what the commands take from them.

No network is exported or run.
"""

import json
import os

import numpy as np
import pytest

from rass_mm.cli import restore
from rass_mm.errors import CheckpointError
from rass_mm.export.loading import load_network
from rass_mm.export.metadata import read_exported
from rass_mm.files.hashing import file_sha256
from rass_mm_cli.main import parser_of

NAMES = {'openvino': ['model.xml', 'model.bin'], 'onnx': ['model.onnx'], 'pt2': ['model.pt2']}
SIDE = 64
PREPROCESSING = {'channels': 'RGB', 'mean': [0.0] * 3, 'std': [1.0] * 3, 'padding': None, 'multiple': 8}


def listed(file):
    return {'bytes': file.stat().st_size, 'sha256': file_sha256(file)}


@pytest.fixture
def described(tmp_path):
    """Function that writes an exported restorer whose network cannot be run, and returns its folder."""

    def write(form='onnx', **changes):
        for name in NAMES[form]:
            if not (tmp_path / name).exists():
                (tmp_path / name).write_bytes(b'network')
        about = {
            **{'kind': 'restorer', 'model': 'SCR', 'format': form, 'dtype': 'float32', 'stride': [SIDE - 16] * 2},
            **{'input': [1, 3, SIDE, SIDE], 'output': [1, 3, SIDE, SIDE], 'request': {}, 'provenance': {}},
            'preprocessing': PREPROCESSING,
            **{'parity': {'relative': 0.0, 'labels': None}, 'versions': {}},
            'files': {name: listed(tmp_path / name) for name in NAMES[form]},
        }
        (tmp_path / 'metadata.json').write_text(json.dumps({**about, **changes}))
        return tmp_path

    return write


def restore_options(*options):
    """The options of a restoration with an exported model."""
    arguments = parser_of('restore', restore).parse_args(['in', 'out', '--backend', 'onnx', *map(str, options)])
    return restore._exported_job(arguments)[2]


def test_the_stride_of_an_exported_restorer_sets_its_overlap(described):
    given = ('--adapter', described())
    assert restore_options(*given).tiling(1) == (SIDE, 16)
    assert restore_options(*given, '--overlap', 0).tiling(1) == (SIDE, 0)
    assert restore_options(*given, '--overlap', 8).tiling(1) == (SIDE, 8)


@pytest.mark.parametrize(('form', 'name'), [(form, name) for form, names in NAMES.items() for name in names])
def test_each_file_that_a_format_opens_must_be_listed(described, form, name):
    folder = described(form)
    read_exported(folder, form, 'restorer')
    files = {other: listed(folder / other) for other in NAMES[form] if other != name}
    (folder / 'model.txt').write_bytes(b'network')
    described(form, files={**files, 'model.txt': listed(folder / 'model.txt')})
    with pytest.raises(CheckpointError, match=f'{name}.*which the format opens.*Export the model again'):
        read_exported(folder, form, 'restorer')


def test_a_pipe_is_not_opened(described):
    folder = described()
    (folder / 'model.onnx').unlink()
    os.mkfifo(folder / 'model.onnx')
    with pytest.raises(CheckpointError, match='model.onnx is not a file'):
        read_exported(folder, 'onnx', 'restorer')


@pytest.mark.parametrize('place', ['initializer', 'Constant'])
def test_external_data_of_onnx_must_be_listed(described, tmp_path, place):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = onnx.numpy_helper.from_array(np.full((1, 3, SIDE, SIDE), 2, np.float32), 'weights')
    nodes = [helper.make_node('Add', ['images', 'weights'], ['result'])]
    if place == 'Constant':
        nodes.insert(0, helper.make_node('Constant', [], ['weights'], value=weights))
    ends = [helper.make_tensor_value_info(name, kind, [1, 3, SIDE, SIDE]) for name in ('images', 'result')]
    graph = helper.make_graph(nodes, 'network', ends[:1], ends[1:], [weights] if place == 'initializer' else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    external = {'save_as_external_data': True, 'location': 'model.onnx.data', 'convert_attribute': True}
    onnx.save(model, tmp_path / 'model.onnx', **external)
    folder = described()
    with pytest.raises(CheckpointError, match='opens model.onnx.data, but metadata.json does not list it'):
        load_network(read_exported(folder, 'onnx', 'restorer'))
    if place == 'initializer':
        described(files={name: listed(folder / name) for name in ('model.onnx', 'model.onnx.data')})
        ones = np.ones((1, 3, SIDE, SIDE), np.float32)
        assert (load_network(read_exported(folder, 'onnx', 'restorer')).run(ones) == 3).all()


@pytest.mark.parametrize('multiple', [0, SIDE + 1, 10**9])
def test_a_multiple_is_at_most_the_window(described, multiple):
    folder = described(preprocessing={**PREPROCESSING, 'multiple': multiple})
    with pytest.raises(CheckpointError, match='multiple'):
        read_exported(folder, 'onnx', 'restorer')
    described(preprocessing={**PREPROCESSING, 'multiple': SIDE})
    read_exported(folder, 'onnx', 'restorer')


@pytest.mark.parametrize('step', [{}, {'type': ''}, {'type': 3}, {'scale': 2}, 'Resize'])
def test_each_step_of_a_pipeline_has_a_type(described, step):
    names = {'names': ['road', 'sky', 'tree'], 'palette': [[0, 0, 0]] * 3, 'threshold': None, 'scores': False}
    classes = {**names, 'align_corners': False, 'blend': 'mean'}
    resize = {'type': 'Resize', 'scale': [64, 64], 'keep_ratio': True}
    folder = described(kind='segmentor', classes={**classes, 'pipeline': [resize, step]})
    with pytest.raises(CheckpointError, match=r'classes\.pipeline\.1.*Export the model again'):
        read_exported(folder, 'onnx', 'segmentor')
    described(kind='segmentor', classes={**classes, 'pipeline': [resize]})
    assert read_exported(folder, 'onnx', 'segmentor').metadata['classes']['pipeline'] == [resize]
