"""Strict loading of truncated, invalid, missing or wrongly labelled files, and of valid files compared with mmseg."""

import io

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from rass_mm.datasets.loading import LoadImageStrict, LoadLabelStrict
from rass_mm.errors import DataError
from rass_mm.files.integrity import check_complete

RNG = np.random.default_rng(0)
PICTURE = cv2.GaussianBlur(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 2)
LABEL = RNG.integers(0, 4, (48, 64), dtype=np.uint8)


def encoded(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


WHOLE = {
    'base.jpg': encoded(PICTURE, 'JPEG'),
    'progressive.jpg': encoded(PICTURE, 'JPEG', progressive=True),
    'grey.jpg': encoded(PICTURE[..., 0], 'JPEG'),
    'junk.jpg': encoded(PICTURE, 'JPEG') + b'\0' * 5000,
    'thumbnail.jpg': encoded(PICTURE, 'JPEG', comment=encoded(PICTURE[:8, :8], 'JPEG')),
    'base.png': encoded(PICTURE, 'PNG'),
    'alpha.png': encoded(np.dstack([PICTURE, PICTURE[..., 0]]), 'PNG'),
    'deep.png': cv2.imencode('.png', PICTURE.astype(np.uint16) * 257)[1].tobytes(),
    'base.bmp': encoded(PICTURE, 'BMP'),
    'base.webp': encoded(PICTURE, 'WEBP'),
}


def written(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return str(path)


def labelled(folder, label, reduce_zero_label=False, size=(48, 64), **options):
    path = written(folder, 'label.png', label if isinstance(label, bytes) else encoded(label, 'PNG'))
    results = {'img_path': str(folder / 'image.jpg'), 'seg_map_path': path, 'seg_fields': [], 'ori_shape': size}
    transform = LoadLabelStrict(**{'num_classes': 4, **options})
    return transform({**results, 'reduce_zero_label': reduce_zero_label})['gt_seg_map']


def refusal(call, *arguments, **keywords):
    with pytest.raises(DataError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


@pytest.mark.parametrize('name', WHOLE)
def test_whole_files_load_as_mmcv_loads_them(tmp_path, name):
    path = written(tmp_path, name, WHOLE[name])
    results = TRANSFORMS.build({'type': 'LoadImageStrict'})({'img_path': path, 'kept': 1})
    expected = LoadImageFromFile()({'img_path': path})['img']
    assert np.array_equal(results['img'], expected) and results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == (48, 64) and results['kept'] == 1


def test_to_float_is_kept(tmp_path):
    image = LoadImageStrict(to_float32=True)({'img_path': written(tmp_path, 'a.png', WHOLE['base.png'])})['img']
    assert image.dtype == np.float32 and np.array_equal(image[..., ::-1], PICTURE)


@pytest.mark.parametrize('name', ['base.jpg', 'progressive.jpg', 'thumbnail.jpg', 'base.png', 'base.bmp', 'base.webp'])
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, name):
    data = WHOLE[name]
    for kept in [0, 1, 2, 3, 4, 8, 20, *np.linspace(30, len(data) - 1, 25).astype(int), len(data) - 13]:
        path = written(tmp_path, name, data[:kept])
        assert path in refusal(LoadImageStrict(), {'img_path': path}), kept


@pytest.mark.parametrize('name', ['base.jpg', 'progressive.jpg', 'base.png'])
def test_a_truncated_file_is_refused_independently_of_the_decoder(name):
    data = WHOLE[name]
    for kept in range(0, len(data) - 64, 37):
        assert 'folder/a' in refusal(check_complete, data[:kept], 'folder/a')
    check_complete(data, 'folder/a')


@pytest.mark.parametrize('orientation', [1, 6])
def test_large_images_load_and_larger_ones_are_refused_before_decoding(tmp_path, orientation):
    """Pillow refuses more than 179 megapixels by itself, which is no fault of the file."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = Image.new('1', (13500, 13300), 1)
    large.save(tmp_path / 'large.png', exif=exif)
    path = str(tmp_path / 'large.png')
    given = {'img_path': path, 'seg_map_path': path, 'reduce_zero_label': False, 'seg_fields': []}
    for load in (LoadImageStrict(), LoadLabelStrict(2)):
        message = refusal(load, given)
        assert path in message and '13500x13300' in message and 'max_pixels' in message
    loaded = LoadImageStrict(max_pixels=200_000_000, color_type='grayscale')(given)
    assert loaded['exif_orientation'] == orientation and loaded['img'].all()
    assert loaded['img_shape'] == ((13300, 13500) if orientation == 1 else (13500, 13300))
    label = LoadLabelStrict(2, max_pixels=200_000_000)(given)['gt_seg_map']
    assert label.shape == (13300, 13500) and label.all()


def test_text_files_and_missing_files_are_named(tmp_path):
    path = written(tmp_path, 'page.jpg', b'<html>404 not found</html>')
    assert path in refusal(LoadImageStrict(), {'img_path': path})
    absent = str(tmp_path / 'absent.jpg')
    assert f'{absent} does not exist' in refusal(LoadImageStrict(), {'img_path': absent})


def test_absent_label_names_label_and_image(tmp_path):
    results = {'img_path': 'image.jpg', 'seg_map_path': str(tmp_path / 'absent.png'), 'seg_fields': []}
    message = refusal(LoadLabelStrict(4), results)
    assert str(tmp_path / 'absent.png') in message and 'image.jpg' in message


@pytest.mark.parametrize('kept', [0, 10, 100, 0.5, 0.95])
def test_a_cut_label_is_refused_by_name(tmp_path, kept):
    data = encoded(LABEL, 'PNG')
    part = data[: int(kept * len(data)) if isinstance(kept, float) else kept]
    assert str(tmp_path / 'label.png') in refusal(labelled, tmp_path, part)


def test_a_valid_label_equals_mmsegs(tmp_path):
    assert np.array_equal(labelled(tmp_path, LABEL), LABEL)


def test_label_of_another_size_names_both_files_and_sizes(tmp_path):
    message = refusal(labelled, tmp_path, LABEL[:40, :60])
    assert f'{tmp_path / "label.png"} is 60x40' in message and f'{tmp_path / "image.jpg"} is 64x48' in message


def test_a_turned_label_is_refused(tmp_path):
    assert 'is 48x64' in refusal(labelled, tmp_path, np.ascontiguousarray(LABEL.T))


def test_ids_out_of_range_name_file_and_ids(tmp_path):
    message = refusal(labelled, tmp_path, np.where(LABEL == 2, 77, LABEL).astype(np.uint8))
    assert str(tmp_path / 'label.png') in message and '[77]' in message and '0 to 3' in message
    assert 'set reduce_zero_label=True' not in message


def test_ids_from_one_to_k_hint_at_reduce_zero_label(tmp_path):
    message = refusal(labelled, tmp_path, LABEL + 1)
    assert '[4]' in message and 'set reduce_zero_label=True' in message
    assert np.array_equal(labelled(tmp_path, LABEL + 1, reduce_zero_label=True), LABEL)


def test_the_ignored_id_is_not_an_error(tmp_path):
    label = np.where(LABEL == 2, 255, LABEL).astype(np.uint8)
    assert np.array_equal(labelled(tmp_path, label), label)
    assert '[255]' in refusal(labelled, tmp_path, label, ignore_index=254)
    assert np.array_equal(
        labelled(tmp_path, np.where(LABEL == 2, 200, LABEL).astype(np.uint8), ignore_index=200) == 200, LABEL == 2
    )


@pytest.mark.parametrize('reduce', [False, True])
def test_the_label_equals_that_of_mmseg(tmp_path, reduce):
    label = np.where(LABEL == 0, 255, LABEL).astype(np.uint8)
    label[:5] = 0
    found = labelled(tmp_path, label, reduce_zero_label=reduce)
    results = {'seg_map_path': str(tmp_path / 'label.png'), 'seg_fields': [], 'reduce_zero_label': reduce}
    expected = LoadAnnotations()(results)['gt_seg_map']
    assert np.array_equal(found, expected) and found.dtype == expected.dtype
    assert set(np.unique(found)) == ({0, 1, 2, 255} if reduce else {0, 1, 2, 3, 255})


def test_zero_under_reduce_zero_label_is_ignored_and_too_high_ids_are_found(tmp_path):
    assert 'reduce_zero_label=True' in refusal(labelled, tmp_path, LABEL + 2, reduce_zero_label=True)


def test_a_colour_image_is_not_a_label(tmp_path):
    assert 'colour' in refusal(labelled, tmp_path, PICTURE)


def test_a_colour_image_of_valid_ids_is_not_a_label_either(tmp_path):
    assert 'colour' in refusal(labelled, tmp_path, np.dstack([LABEL] * 3))


def test_ids_beyond_a_byte_do_not_wrap_around_to_valid_ones(tmp_path):
    data = cv2.imencode('.png', LABEL.astype(np.uint16) + 256 * (LABEL == 2).astype(np.uint16))[1].tobytes()
    assert '[258]' in refusal(labelled, tmp_path, data)


def test_palette_labels_are_read_as_ids(tmp_path):
    image = Image.fromarray(LABEL, 'P')
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    buffer = io.BytesIO()
    image.save(buffer, 'PNG')
    assert np.array_equal(labelled(tmp_path, buffer.getvalue()), LABEL)
