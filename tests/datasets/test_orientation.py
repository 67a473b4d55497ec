"""Label maps of images with an EXIF orientation: they agree, or it is an error, in loading and in `check-data`."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image, ImageOps

from rass_mm.datasets.check.run import check_config
from rass_mm.datasets.loading import LoadImageStrict, LoadLabelStrict
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.orientation import turned

WIDE, SQUARE = (32, 48), (32, 32)


def pair(folder, orientation, size=WIDE, suffix='.jpg'):
    """Writes an image whose left half is dark as stored, and a label map of that half on the stored pixels."""
    (folder / 'images').mkdir(exist_ok=True)
    (folder / 'labels').mkdir(exist_ok=True)
    label = np.zeros(size, np.uint8)
    label[: size[0] // 4, : size[1] // 2] = 1
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.repeat(255 * label[..., None], 3, 2))
    image.save(folder / f'images/a{suffix}', exif=exif, **({'quality': 95} if suffix == '.jpg' else {}))
    Image.fromarray(label).save(folder / 'labels/a.png')
    return {'img_path': f'{folder}/images/a{suffix}', 'seg_map_path': f'{folder}/labels/a.png', 'seg_fields': []}


def loaded(paths, drawn_on=None):
    results = LoadLabelStrict(2, drawn_on=drawn_on)({'reduce_zero_label': False, **LoadImageStrict()(paths)})
    return results['img'], results['gt_seg_map']


def report(folder, suffix='.jpg', **step):
    pipeline = [dict(type='LoadImageStrict'), dict(type='LoadLabelStrict', num_classes=2, **step)]
    data = dict(type='BaseSegDataset', data_root=str(folder), metainfo=dict(classes=['a', 'b']), pipeline=pipeline)
    prefix = dict(data_prefix=dict(img_path='images', seg_map_path='labels'), img_suffix=suffix)
    (found,) = check_config(Config(dict(train_dataloader=dict(dataset={**data, **prefix}))))
    return found


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turning_equals_pillows(orientation):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    assert np.array_equal(turned(pixels, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('size', [WIDE, SQUARE])
def test_labels_on_the_stored_pixels_are_turned_along_or_refused(tmp_path, orientation, size):
    paths = pair(tmp_path, orientation, size)
    image, label = loaded(paths, 'stored')
    assert image.shape[:2] == label.shape and (image.mean(-1)[label == 1] > 200).all()
    assert image.mean(-1)[label == 0].mean() < 20
    assert report(tmp_path, drawn_on='stored').problems == 0
    if orientation == 1:
        assert loaded(paths)[1].sum() == label.sum() and report(tmp_path).problems == 0
        return
    with pytest.raises(DataError, match=rf'EXIF orientation {orientation}.*drawn_on='):
        loaded(paths)
    (entry,) = report(tmp_path).turned
    assert entry['partner'] == paths['seg_map_path'] and f'EXIF orientation {orientation}' in entry['reason']
    assert report(tmp_path).problems == 1


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_labels_of_the_size_of_the_displayed_image_agree(tmp_path, orientation):
    paths = pair(tmp_path, orientation)
    displayed = turned(np.asarray(Image.open(paths['seg_map_path'])), orientation)
    Image.fromarray(displayed).save(paths['seg_map_path'])
    image, label = loaded(paths)
    assert np.array_equal(label, displayed) and (image.mean(-1)[label == 1] > 200).all()
    assert report(tmp_path).problems == 0


def test_labels_that_fit_neither_are_a_size_problem(tmp_path):
    paths = pair(tmp_path, 6)
    Image.new('L', (40, 40)).save(paths['seg_map_path'])
    with pytest.raises(DataError, match='must have the same size'):
        loaded(paths)
    found = report(tmp_path)
    assert found.turned == [] and len(found.mismatches) == 1


def test_displayed_labels_may_be_declared(tmp_path):
    paths = pair(tmp_path, 3)
    _, label = loaded(paths, 'displayed')
    assert np.array_equal(label, np.asarray(Image.open(paths['seg_map_path'])))
    with pytest.raises(ConfigError, match='drawn_on'):
        LoadLabelStrict(2, drawn_on='screen')


def test_images_whose_tag_is_not_applied_are_upright(tmp_path):
    paths = pair(tmp_path, 6)
    results = LoadImageStrict(color_type='unchanged')(paths)
    assert results['exif_orientation'] == 1
    assert results['img'].shape[:2] == cv2.imread(paths['img_path'], cv2.IMREAD_UNCHANGED).shape[:2]


@pytest.mark.parametrize(('name', 'options'), [('JPEG', {}), ('WEBP', {'lossless': False}), ('JPEG2000', {})])
def test_lossy_labels_are_a_problem_of_their_own(tmp_path, name, options):
    paths = pair(tmp_path, 1)
    label = Image.open(paths['seg_map_path'])
    (label.convert('RGB') if name == 'WEBP' else label).save(paths['seg_map_path'], name, **options)
    with pytest.raises(DataError, match=f'{name} changes pixel values'):
        loaded(paths)
    found = report(tmp_path)
    assert [entry['file'] for entry in found.lossy] == [paths['seg_map_path']] and found.problems == 1
    assert found.out_of_range == found.unreadable == found.hints == []
