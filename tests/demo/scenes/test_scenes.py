"""The scenes are reproducible, aligned with their labels, varied, and not to be solved by colour."""

import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from rass_mm.datasets.scenes import PALETTE, SCENE_CLASSES
from rass_mm.demo.scenes.generator import make_scene, scene_seed, write_scenes
from rass_mm.errors import DataError

COUNT = 200


@pytest.fixture(scope='module')
def scenes():
    return [make_scene(seed, 96, 96) for seed in range(COUNT)]


def _digest(seed, height, width):
    image, label = make_scene(seed, height, width)
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()


def _boundary(label):
    edge = np.zeros(label.shape, bool)
    edge[:, 1:] |= label[:, 1:] != label[:, :-1]
    edge[1:] |= label[1:] != label[:-1]
    return edge


def _gradient(image):
    smooth = image.astype(np.float32)
    change = np.zeros(image.shape[:2], np.float32)
    change[:, 1:] = np.abs(np.diff(smooth, axis=1)).sum(2)
    change[1:] = np.maximum(change[1:], np.abs(np.diff(smooth, axis=0)).sum(2))
    return change


def test_classes_and_palette_fit():
    assert len(SCENE_CLASSES) == len(PALETTE) == len(set(SCENE_CLASSES)) == len(set(PALETTE))


def test_same_seed_gives_the_same_bytes_in_another_process():
    seeds = (0, 7, scene_seed(3, 'train', 5))
    code = (
        'import hashlib\nfrom rass_mm.demo.scenes.generator import make_scene\n'
        f'for seed in {seeds}:\n'
        '    image, label = make_scene(seed, 64, 96)\n'
        '    print(hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest())\n'
    )
    there = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.split()
    here = [_digest(seed, 64, 96) for seed in seeds]
    assert there[-3:] == here
    assert len(set(here)) == 3


@pytest.mark.parametrize(('height', 'width'), [(32, 32), (48, 160), (160, 40), (97, 131), (256, 256), (512, 32)])
def test_any_size(height, width):
    for seed in range(6):
        image, label = make_scene(seed, height, width)
        assert image.shape == (height, width, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
        assert label.shape == (height, width) and label.dtype == np.uint8
        assert label.max() < len(SCENE_CLASSES)
        assert image.std() > 3


@pytest.mark.parametrize('size', [(31, 64), (64, 513)])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(DataError, match='32 to 512'):
        make_scene(0, *size)


def test_every_class_is_at_times_present_and_at_times_absent(scenes):
    present = np.mean([np.bincount(label.ravel(), minlength=len(SCENE_CLASSES)) > 0 for _, label in scenes], 0)
    for name, share in zip(SCENE_CLASSES, present, strict=True):
        assert 0.05 <= share <= 0.95, f'{name} is in {share:.0%} of the scenes'


def test_class_shares_are_sane(scenes):
    labels = np.stack([label for _, label in scenes])
    shares = np.bincount(labels.ravel(), minlength=len(SCENE_CLASSES)) / labels.size
    assert len(shares) == len(SCENE_CLASSES)
    assert shares.max() < 0.5
    assert shares.min() > 0.001


def test_label_borders_lie_on_image_edges(scenes):
    """The own label explains the image's edges better than another scene's and than itself moved by two pixels."""
    own, other, moved = [], [], []
    for index in range(60):
        edges = _gradient(scenes[index][0])
        label = scenes[index][1]
        own.append(edges[_boundary(label)].mean())
        other.append(edges[_boundary(scenes[index + 1][1])].mean())
        moved += [edges[_boundary(np.roll(label, step, axis))].mean() for step in (-2, 2) for axis in (0, 1)]
    assert np.mean(own) > 2 * np.mean(other)
    assert np.mean(own) > 1.4 * np.mean(moved)


def test_thin_things_keep_their_own_pixels(scenes):
    """A pole is a few pixels wide: an erosion removes most of it, and its colour differs from what is beside it."""
    pole = SCENE_CLASSES.index('pole')
    masks = np.stack([label == pole for _, label in scenes])
    cores = sum(cv2.erode(mask.astype(np.uint8), np.ones((5, 5))).sum() for mask in masks)
    assert cores < 0.15 * masks.sum()


def test_colour_alone_does_not_decide(scenes):
    """A nearest-mean-colour classifier, fitted on 50 scenes, stays far from the truth on 50 others."""

    def flat(part):
        images, labels = zip(*part, strict=True)
        return np.stack(images).reshape(-1, 3)[::5].astype(np.float32), np.stack(labels).ravel()[::5]

    colours, labels = flat(scenes[:50])
    means = np.stack([colours[labels == index].mean(0) for index in range(len(SCENE_CLASSES))])
    colours, labels = flat(scenes[50:100])
    guess = ((colours[:, None] - means[None]) ** 2).sum(2).argmin(1)
    union = [((guess == c) | (labels == c)).sum() for c in range(len(means))]
    iou = [((guess == c) & (labels == c)).sum() / u for c, u in enumerate(union) if u]
    assert np.mean(iou) < 0.5


def test_seeds_of_splits_do_not_overlap():
    seeds = [scene_seed(seed, split, i) for seed in (0, 1) for split in ('train', 'val', 'test') for i in range(300)]
    assert len(set(seeds)) == len(seeds)


def _files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_write_scenes_layout_and_idempotence(tmp_path):
    write_scenes(tmp_path, {'train': 3, 'val': 2}, seed=4, size=(32, 48))
    first = _files(tmp_path)
    pairs = {f'{kind}/{name}.png' for kind in ('img_dir', 'ann_dir')
             for name in ('train/00000', 'train/00001', 'train/00002', 'val/00000', 'val/00001')}  # fmt: skip
    assert set(first) == pairs | {'scenes.json'}
    label = cv2.imread(str(tmp_path / 'ann_dir/val/00001.png'), cv2.IMREAD_UNCHANGED)
    image, drawn = make_scene(scene_seed(4, 'val', 1), 32, 48)
    assert np.array_equal(label, drawn)
    assert np.array_equal(cv2.imread(str(tmp_path / 'img_dir/val/00001.png')), image)
    index = json.loads((tmp_path / 'scenes.json').read_text())
    assert index['classes'] == list(SCENE_CLASSES) and index['counts'] == {'train': 3, 'val': 2}

    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.png')}
    write_scenes(tmp_path, {'train': 3, 'val': 2}, seed=4, size=(32, 48))
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.png')}


def test_an_interrupted_write_is_completed(tmp_path):
    write_scenes(tmp_path, {'train': 3}, size=(32, 32))
    whole = _files(tmp_path)
    (tmp_path / 'scenes.json').unlink()
    (tmp_path / 'img_dir/train/00002.png').unlink()
    (tmp_path / 'ann_dir/train/00001.png').write_bytes(b'half')
    write_scenes(tmp_path, {'train': 3}, size=(32, 32))
    assert _files(tmp_path) == whole


def test_another_set_in_the_folder_is_refused(tmp_path):
    write_scenes(tmp_path, {'train': 1}, size=(32, 32))
    before = _files(tmp_path)
    with pytest.raises(DataError, match='seed is 0, not 1.*Remove the folder'):
        write_scenes(tmp_path, {'train': 1}, seed=1, size=(32, 32))
    (tmp_path / 'scenes.json').unlink()
    with pytest.raises(DataError, match='00000.png'):
        write_scenes(tmp_path, {'val': 1}, size=(32, 32))
    del before['scenes.json']
    assert _files(tmp_path) == before


@pytest.mark.slow
def test_several_processes_write_the_same_bytes(tmp_path):
    write_scenes(tmp_path / 'one', {'train': 12}, size=(32, 32))
    write_scenes(tmp_path / 'two', {'train': 12}, size=(32, 32), workers=2)
    assert _files(tmp_path / 'one') == _files(tmp_path / 'two')


def test_mmseg_loads_the_scenes(tmp_path):
    from mmengine import DefaultScope
    from mmseg.registry import DATASETS

    import rass_mm.datasets.scenes  # noqa: F401  (registers)

    write_scenes(tmp_path, {'train': 3}, size=(32, 32))
    config = dict(
        type='ScenesDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        data = DATASETS.build(config)
    assert len(data) == 3
    assert data.metainfo['classes'] == SCENE_CLASSES
    sample = data[1]
    expected = make_scene(scene_seed(0, 'train', 1), 32, 32)[1]
    assert np.array_equal(sample['data_samples'].gt_sem_seg.data[0].numpy(), expected)


def test_camvid_reads_jpg_and_degraded_png(tmp_path):
    from mmseg.registry import DATASETS

    import rass_mm.datasets.camvid  # noqa: F401  (registers)

    for folder in ('img', 'lq', 'ann'):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / 'img/a.jpg'), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'lq/a.png'), np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'ann/a.png'), np.full((8, 8), 255, np.uint8))
    for folder, options in (('img', {}), ('lq', dict(img_suffix='.png'))):
        prefix = dict(img_path=folder, seg_map_path='ann')
        data = DATASETS.build(dict(type='CamVidDataset', data_root=str(tmp_path), data_prefix=prefix, **options))
        assert len(data) == 1
        assert len(data.metainfo['classes']) == len(data.metainfo['palette']) == 11
        assert data.get_data_info(0)['seg_map_path'].endswith('ann/a.png')
