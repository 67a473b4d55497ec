"""Degraded ADE20K and RealLQ: files, classes and ids."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS

import rass_mm
from rass_mm.datasets.check.run import check_config
from rass_mm.degradation.builder import build_lq_dataset

LAYOUTS = {
    'ADE20KLQDataset': ('_base_/datasets/ade20k_lq.py', 'images_lq/validation', '.png'),
    'RealLQDataset': ('baselines/segformer_b0_dt_reallq.py', 'images/validation', '.jpg'),
}


@pytest.fixture
def root(tmp_path):
    """Two photos in ADE20K's layout with labels of 0 (background), 1 and 150, and degraded copies of the photos."""
    images, labels = tmp_path / 'images' / 'validation', tmp_path / 'annotations' / 'validation'
    for folder in (images, labels):
        folder.mkdir(parents=True)
    label = np.zeros((40, 50), np.uint8)
    label[:, 10:20], label[:, 20:25] = 1, 150
    rng = np.random.default_rng(0)
    for name in ('ADE_val_00000001', 'ADE_val_00000002'):
        cv2.imwrite(str(images / f'{name}.jpg'), rng.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        cv2.imwrite(str(labels / f'{name}.png'), label)
    build_lq_dataset(images, tmp_path / 'images_lq' / 'validation', seed=0, workers=1)
    return tmp_path


def shipped(kind, root):
    config = Config.fromfile(str(rass_mm.config_path(LAYOUTS[kind][0])))
    config.test_dataloader.dataset.data_root = str(root)
    return config


@pytest.mark.parametrize('kind', LAYOUTS)
def test_the_shipped_test_data_set_finds_images_and_labels(kind, root):
    init_default_scope('mmseg')
    _, folder, suffix = LAYOUTS[kind]
    dataset = DATASETS.build(shipped(kind, root).test_dataloader.dataset)
    assert type(dataset).__name__ == kind
    assert len(dataset) == 2
    assert dataset.get_data_info(1)['img_path'] == f'{root}/{folder}/ADE_val_00000002{suffix}'
    sample = dataset[1]['data_samples']
    assert sample.metainfo['ori_shape'] == (40, 50) and sample.metainfo['img_shape'] == (512, 640)
    assert np.unique(sample.gt_sem_seg.data).tolist() == [0, 149, 255]
    assert sample.gt_sem_seg.data.shape == (1, 40, 50)  # at the original size of the label
    assert dataset.metainfo['classes'] == ADE20KDataset.METAINFO['classes']
    assert dataset.metainfo['palette'] == ADE20KDataset.METAINFO['palette']


@pytest.mark.parametrize('kind', LAYOUTS)
def test_check_data_reads_them(kind, root):
    (report,) = check_config(shipped(kind, root), ['test'])
    assert (report.images, report.problems, report.data['type']) == (2, 0, kind)
    assert {row['name']: row['pixels'] for row in report.classes if row['pixels']} == {'wall': 800, 'flag': 400}
    assert report.ignored['pixels'] == 2 * 40 * 35 and len(report.never) == 148


def test_suffixes_are_the_defaults_of_the_classes(root):
    for kind, (_, folder, _) in LAYOUTS.items():
        prefix = dict(img_path=folder, seg_map_path='annotations/validation')
        assert len(DATASETS.build(dict(type=kind, data_root=str(root), data_prefix=prefix))) == 2
