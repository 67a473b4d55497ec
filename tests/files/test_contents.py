"""Limits on what a pickled checkpoint may contain."""

import zipfile

import pytest
import torch

from rass_mm.errors import CheckpointError
from rass_mm.files.tensors import read_tensors


def saved(path, content):
    torch.save(content, path)
    return path


def test_plain_content_is_read(tmp_path):
    shared = [1, 2]
    content = {'state_dict': {'a': torch.ones(2, 3)}, 'lists': [shared, shared], 'number': 2**70}
    assert read_tensors(saved(tmp_path / 'a.pth', content))['lists'] == [[1, 2], [1, 2]]


def test_shared_containers_count_each_time(tmp_path):
    content = [0]
    for _ in range(30):
        content = [content] * 10
    with pytest.raises(CheckpointError, match=r'a\.pth.*more than .* entries'):
        read_tensors(saved(tmp_path / 'a.pth', content))


def test_a_container_in_itself_is_refused(tmp_path):
    content = {'a': []}
    content['a'].append(content)
    with pytest.raises(CheckpointError, match='contains itself'):
        read_tensors(saved(tmp_path / 'a.pth', content))


@pytest.mark.parametrize(
    'value',
    [
        torch.ones(4).to_sparse(),
        torch.ones(4, device='meta'),
        torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        torch.ones(1).expand(2**20, 2**20),
    ],
    ids=['sparse', 'meta', 'quantized', 'repeated'],
)
def test_only_plain_tensors_are_read(tmp_path, value):
    with pytest.raises(CheckpointError, match=r"a\.pth.*\['weight'\]"):
        read_tensors(saved(tmp_path / 'a.pth', {'weight': value}))


@pytest.mark.parametrize('part', [0.3, 0.5, 0.7])
def test_a_flipped_bit_is_found(tmp_path, part):
    path = saved(tmp_path / 'a.pth', {str(index): torch.rand(500) for index in range(20)})
    data = bytearray(path.read_bytes())
    data[int(len(data) * part)] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r'a\.pth is damaged'):
        read_tensors(path)


def test_a_file_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / 'a.pth', {'a': torch.rand(500)})
    finally:
        torch.serialization.set_crc32_options(before)
    assert read_tensors(path)['a'].shape == (500,)


def test_a_small_file_that_inflates_to_gigabytes_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/data.pkl', bytes(2**29))
    with pytest.raises(CheckpointError, match='inflate'):
        read_tensors(tmp_path / 'a.pth')


def test_another_zip_file_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
        archive.writestr('readme.txt', 'hello')
    with pytest.raises(CheckpointError, match='not a checkpoint'):
        read_tensors(tmp_path / 'a.pth')
