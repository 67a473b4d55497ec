"""A pipe or a device in the place of a file is an error, and never a command that waits."""

import os
import signal

import pytest

from rass_mm.config import load_config
from rass_mm.config.data import read_config_data
from rass_mm.datasets.check.reading import label_ids
from rass_mm.datasets.loading import LoadImageStrict, LoadLabelStrict
from rass_mm.datasets.preflight import check_data_folders
from rass_mm.degradation.reading import read_image
from rass_mm.diffusion.adapter_files import read_adapter
from rass_mm.diffusion.base_weights import weights_hash
from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.work_dirs import check_last_checkpoint
from rass_mm.errors import RassError
from rass_mm.files.images import read_picture
from rass_mm.files.locks import held
from rass_mm.files.manifest import output_state, read_header, read_manifest
from rass_mm.files.schemas import read_json
from rass_mm.files.tensors import read_tensors
from rass_mm.files.verified import VERIFIED, Verified
from rass_mm.inference.photos import read_bgr


def make_pipe(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return path


@pytest.fixture(autouse=True)
def limited():
    """Ends a test that waits."""

    def end(*_):
        raise TimeoutError('it waits')

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


READERS = {
    'image': read_picture,
    'photo': read_bgr,
    'image of a data set': lambda path: LoadImageStrict()({'img_path': str(path)}),
    'label': lambda path: LoadLabelStrict(3)({'seg_map_path': str(path)}),
    'checked label': label_ids,
    'clean image': read_image,
    'manifest': read_manifest,
    'JSON': lambda path: read_json(path, dict, ''),
    'checkpoint': load_local,
    'published weights': read_tensors,
    'adapter': read_adapter,
    'config': load_config,
    'config that is data': read_config_data,
}


@pytest.mark.parametrize('kind', ['pipe', 'device'])
@pytest.mark.parametrize('reader', READERS)
def test_a_special_file_is_an_error(reader, kind, tmp_path):
    file = tmp_path / 'a.json'
    if kind == 'pipe':
        make_pipe(file)
    else:
        file.symlink_to('/dev/zero')
    with pytest.raises(RassError, match=r'a\.json'):
        READERS[reader](file)


def test_a_list_of_images(tmp_path):
    (tmp_path / 'a.png').touch()
    make_pipe(tmp_path / 'list.txt')
    dataset = {'type': 'ScenesDataset', 'data_root': str(tmp_path), 'data_prefix': {'img_path': ''}}
    dataset |= {'ann_file': 'list.txt', 'img_suffix': '.png'}
    with pytest.raises(RassError, match=r'list\.txt is not a file'):
        check_data_folders({'dataset': dataset}, 'train_dataloader')


def test_the_record_of_the_last_checkpoint(tmp_path):
    make_pipe(tmp_path / 'last_checkpoint')
    with pytest.raises(RassError, match='last_checkpoint is not a file'):
        check_last_checkpoint(tmp_path)


def test_weights_of_a_base(tmp_path):
    make_pipe(tmp_path / 'unet' / 'diffusion_pytorch_model.safetensors')
    with pytest.raises(RassError, match='is not a file'):
        weights_hash(tmp_path, ('unet',))


def test_an_output_a_header_and_a_record_are_only_not_used(tmp_path, caplog):
    assert output_state(make_pipe(tmp_path / 'a.png'), None) == 'damaged'
    assert read_header(make_pipe(tmp_path / 'manifest.jsonl')) == {}
    make_pipe(tmp_path / VERIFIED)
    verified = Verified(tmp_path)
    verified.add(tmp_path / 'b.png', (1, 2), 3)
    assert 'cannot be written (not a file)' in caplog.text


@pytest.mark.parametrize('link', [os.link, os.symlink, lambda source, target: make_pipe(target)])
def test_a_lock_file_that_is_a_link_is_kept(link, tmp_path):
    (tmp_path / 'mine').write_text('mine')
    link(tmp_path / 'mine', tmp_path / '.rass_mm.lock')
    with pytest.raises(RassError, match=r'rass_mm\.lock is a link or not a file'), held(tmp_path):
        pass
    assert (tmp_path / 'mine').read_text() == 'mine'
