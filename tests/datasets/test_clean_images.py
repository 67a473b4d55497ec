"""Pairs of degraded and clean images: kept, loaded, packed."""

import cv2
import numpy as np
import pytest
from PIL import Image

from rass_mm.datasets import KeepCleanImage, LoadCleanImage
from rass_mm.errors import DataError

CLEAN = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)


@pytest.fixture
def pair(tmp_path):
    """Folder with lq/val/a.b.png and gt/val/a.b.jpg (which contains a PNG)."""
    for folder in ('lq', 'gt'):
        (tmp_path / folder / 'val').mkdir(parents=True)
    file = tmp_path / 'gt' / 'val' / 'a.b.jpg'
    file.write_bytes(cv2.imencode('.png', CLEAN)[1].tobytes())
    return {'img_path': str(tmp_path / 'lq' / 'val' / 'a.b.png'), 'img': CLEAN // 2, 'img_shape': CLEAN.shape[:2]}


def test_the_kept_image_is_a_copy():
    results = {'img': CLEAN.copy()}
    kept = KeepCleanImage()(results)
    kept['img'][:] = 0
    assert np.array_equal(kept['gt'], CLEAN)


def test_the_partner_is_found_by_folder_and_suffix(pair, tmp_path):
    loaded = LoadCleanImage('lq', 'gt', '.jpg')(pair)
    assert np.array_equal(loaded['gt'], CLEAN) and np.array_equal(loaded['img'], CLEAN // 2)
    assert loaded['gt_path'] == str(tmp_path / 'gt' / 'val' / 'a.b.jpg')


def test_the_last_folder_of_that_name_counts(pair, tmp_path):
    (tmp_path / 'lq' / 'more').mkdir()
    deep = tmp_path / 'lq' / 'more' / 'gt' / 'a.b.jpg'
    deep.parent.mkdir()
    deep.write_bytes(cv2.imencode('.png', CLEAN)[1].tobytes())
    path = str(tmp_path / 'lq' / 'more' / 'lq' / 'a.b.png')
    assert LoadCleanImage('lq', 'gt', '.jpg')({**pair, 'img_path': path})['gt_path'] == str(deep)


def test_a_given_path_has_priority(pair, tmp_path):
    other = str(tmp_path / 'gt' / 'val' / 'a.b.jpg')
    loaded = LoadCleanImage()({**pair, 'img_path': '/elsewhere/x.png', 'gt_path': other})
    assert np.array_equal(loaded['gt'], CLEAN)


def test_smaller_images_are_enlarged_on_request_only(pair):
    small = {**pair, 'img': cv2.resize(CLEAN, (12, 8))}
    loaded = LoadCleanImage('lq', 'gt', '.jpg', upscale=True)(small)
    assert loaded['img'].shape == CLEAN.shape and loaded['img_shape'] == (32, 48)
    expected = cv2.resize(small['img'], (48, 32), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(loaded['img'], expected)
    with pytest.raises(DataError, match=r'a\.b\.png is 12x8 .*a\.b\.jpg is 48x32'):
        LoadCleanImage('lq', 'gt', '.jpg')(small)


def test_pillow_backend_equals_pillow(pair):
    small = {**pair, 'img': cv2.resize(CLEAN, (12, 8))}
    loaded = LoadCleanImage('lq', 'gt', '.jpg', upscale=True, backend='pillow')(small)
    expected = np.asarray(Image.fromarray(small['img'][..., ::-1]).resize((48, 32), Image.BICUBIC))
    assert np.array_equal(loaded['img'][..., ::-1], expected)
    other = LoadCleanImage('lq', 'gt', '.jpg', upscale=True)(small)['img']
    assert not np.array_equal(other, loaded['img'])


@pytest.mark.parametrize('size', [(96, 64), (96, 16)])
def test_larger_images_are_never_shrunk(pair, size):
    with pytest.raises(DataError, match=f'is {size[0]}x{size[1]}.*upscale=True enlarges'):
        LoadCleanImage('lq', 'gt', '.jpg', upscale=True)({**pair, 'img': cv2.resize(CLEAN, size)})


def test_missing_and_damaged_partners_are_named(pair, tmp_path):
    with pytest.raises(DataError, match=r'gt.val.a\.b\.png does not exist'):
        LoadCleanImage('lq', 'gt')(pair)
    with pytest.raises(DataError, match="no folder 'img_lq'.*LoadCleanImage.lq"):
        LoadCleanImage('img_lq', 'gt')(pair)
    file = tmp_path / 'gt' / 'val' / 'a.b.jpg'
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r'a\.b\.jpg: the image cannot be read'):
        LoadCleanImage('lq', 'gt', '.jpg')(pair)


def test_packed_samples_hold_planes_labels_and_names():
    pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    from rass_mm.restoration.packing import PackSCRInputs

    label = np.arange(32 * 48, dtype=np.uint8).reshape(32, 48)
    packed = PackSCRInputs()({'img': CLEAN, 'gt': CLEAN[:, ::-1], 'gt_seg_map': label, 'img_path': 'a.png', 'other': 1})
    sample = packed['data_samples']
    assert np.array_equal(packed['inputs'].permute(1, 2, 0).numpy(), CLEAN)
    assert np.array_equal(sample.gt_img.permute(1, 2, 0).numpy(), CLEAN[:, ::-1])
    assert np.array_equal(sample.gt_sem_seg.data[0].numpy(), label) and sample.gt_sem_seg.data.dtype.is_signed
    assert sample.metainfo == {'img_path': 'a.png'}
    bare = PackSCRInputs()({'img': CLEAN})['data_samples']
    assert 'gt_img' not in bare and 'gt_sem_seg' not in bare
