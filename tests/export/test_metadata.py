"""Metadata of exported models that are written by hand: what they must contain, and what the commands take from them.

No network is exported or run.
"""

import json

import pytest

from rass_mm.cli import restore
from rass_mm.files.hashing import file_sha256
from rass_mm_cli.main import parser_of

NAMES = {'openvino': ['model.xml', 'model.bin'], 'onnx': ['model.onnx'], 'pt2': ['model.pt2']}
SIDE = 64


@pytest.fixture
def described(tmp_path):
    """Function that writes an exported restorer whose network cannot be run, and returns its folder."""

    def write(form='onnx', **changes):
        for name in NAMES[form]:
            (tmp_path / name).write_bytes(b'network')
        about = {
            **{'kind': 'restorer', 'model': 'SCR', 'format': form, 'dtype': 'float32', 'stride': [SIDE - 16] * 2},
            **{'input': [1, 3, SIDE, SIDE], 'output': [1, 3, SIDE, SIDE], 'request': {}, 'provenance': {}},
            'preprocessing': {'channels': 'RGB', 'mean': [127.5] * 3, 'std': [127.5] * 3, 'padding': None, 'multiple': 8},
            **{'parity': {'relative': 0.0, 'labels': None}, 'versions': {}},
            'files': {name: {'bytes': 7, 'sha256': file_sha256(tmp_path / name)} for name in NAMES[form]},
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
