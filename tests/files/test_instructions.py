"""Check of the instructions of a checkpoint before they are run."""

import collections
import struct
import time

import numpy as np
import pytest
import torch
from campaign import pickles
from mmengine.logging import HistoryBuffer

import rass_mm  # noqa: F401  (allows the training state of mmengine)
from rass_mm.errors import CheckpointError
from rass_mm.files.tensors import read_tensors

FORMS = ('zip', 'legacy', 'plain')


def read(tmp_path, data, form='zip'):
    (tmp_path / 'a.pth').write_bytes(pickles.FORMS[form](data))
    return read_tensors(tmp_path / 'a.pth')


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', [name for name, _ in pickles.large_calls()])
def test_calls_that_take_gigabytes_are_refused(tmp_path, name, form):
    with pytest.raises(CheckpointError, match=r'a\.pth was not loaded: it '):
        read(tmp_path, dict(pickles.large_calls())[name], form)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', [name for name, _ in pickles.nested_keys()])
def test_hashes_that_never_end_are_refused_at_once(tmp_path, name, form):
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=r'a\.pth'):
        read(tmp_path, dict(pickles.nested_keys())[name], form)
    assert time.monotonic() - started < 5


def test_a_nested_key_as_a_storage_is_refused(tmp_path):
    nested = pickles.nested_tuple()
    name = b'(' + pickles.text(b'storage') + b'ctorch\nFloatStorage\n' + nested + pickles.text(b'cpu') + b'K\x01tQ'
    with pytest.raises(CheckpointError, match='key'):
        read(tmp_path, b'\x80\x02' + name + b'.')


def test_copies_of_a_large_container_are_refused(tmp_path):
    items = b''.join(b'J' + struct.pack('<i', number) + b'N' for number in range(10_000))
    many = b'}(' + items + b'uq\x00'
    data = b'\x80\x02](' + many + b'ccollections\nCounter\nq\x01h\x00\x85R' + b'h\x01h\x00\x85R' * 3000 + b'e.'
    with pytest.raises(CheckpointError, match='more instructions than its size allows'):
        read(tmp_path, data)


def test_a_large_storage_of_an_older_file_is_refused(tmp_path):
    made = pickles.tensor(pickles.storage(size=2**30)[:-2].replace(b'L1073741824L\n', b'J\x00\x00\x00\x40N') + b'tQ')
    with pytest.raises(CheckpointError, match='more instructions than its size allows'):
        read(tmp_path, b'\x80\x02' + made + b'.', 'legacy')


def training_state():
    weight = torch.nn.Parameter(torch.rand(2, 3))
    layer = torch.nn.BatchNorm2d(2)
    return {
        'state_dict': layer.state_dict(),
        'parameter': weight,
        'view': torch.arange(12.0).view(3, 4).t()[1:],
        'repeated': torch.ones(1).expand(100),
        'empty': torch.zeros(0, 3),
        'scalar': torch.tensor(2.0),
        'bytes': b'abc\xff',
        'bytearray': bytearray(b'abc'),
        'set': {1, 'a', (2, 3)},
        'complex': 1 + 2j,
        'counter': collections.Counter('abca'),
        'keys': {('a', 1): 2, (1, (2, 3)): 4, None: 5, 2.5: 6, torch.float16: 7, 140_000_000_000_000: 8},
        'size': torch.Size([1, 2]),
        'device': torch.device('cpu'),
        'dtype': torch.float32,
        'array': np.arange(5.0),
        'number': np.float64(2.5),
        'integer': np.int64(3),
        'history': HistoryBuffer([1.0, 2.0], [1, 1]),
        'large number': 2**1000,
        'half': torch.ones(3, dtype=torch.bfloat16),
        'uint16': torch.ones(3, dtype=torch.uint16),
        'lists': [[1, None, True], ()],
    }


@pytest.mark.parametrize('zipped', [True, False])
def test_what_torch_saves_is_read(tmp_path, zipped):
    content = training_state()
    if not zipped:
        content.pop('uint16')  # the older format has no such storages
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    found = read_tensors(tmp_path / 'a.pth')
    assert found.keys() == content.keys()
    assert found['keys'] == content['keys'] and found['bytes'] == b'abc\xff' and found['set'] == content['set']
    assert torch.equal(found['view'], content['view']) and torch.equal(found['parameter'], content['parameter'])
    assert found['history'].mean() == 1.5 and found['array'].tolist() == list(range(5))


def test_an_ordered_dict_of_python_2_is_read(tmp_path):
    pair = b'](' + pickles.text(b'a') + b'K\x05e'
    data = b'\x80\x02ccollections\nOrderedDict\n](' + pair + b'e\x85R.'
    assert read(tmp_path, data) == {'a': 5}


@pytest.mark.parametrize(
    ('value', 'named'),
    [
        (2**3000, 'the pickle instruction LONG4'),
        (np.array(['a', 'b']), r'numpy\.dtypes\.StrDType'),
        (np.str_('a'), r'numpy\.dtypes\.StrDType'),
    ],
)
def test_harmless_values_that_torch_cannot_read_are_not_called_code(tmp_path, value, named):
    torch.save({'state_dict': {}, 'value': value}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=f'cannot be read safely: it contains {named}') as caught:
        read_tensors(tmp_path / 'a.pth')
    assert 'run code' not in str(caught.value)
