"""LQDegradation as part of an mmseg pipeline."""

import numpy as np
import pytest
from mmseg.registry import TRANSFORMS

from rass_mm.degradation import applying, transforms
from rass_mm.errors import ConfigError, DataError


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
    return {'img': image, 'gt_seg_map': rng.integers(0, 9, (40, 56), dtype=np.uint8), 'img_path': 'a.jpg'}


def test_it_is_built_from_a_config_and_changes_only_the_image(sample):
    transform = TRANSFORMS.build({'type': 'LQDegradation', 'recipe': {'first': {'jpeg_quality': [40, 50]}}})
    assert isinstance(transform, transforms.LQDegradation)
    image, labels = sample['img'].copy(), sample['gt_seg_map'].copy()
    results = transform(dict(sample))
    assert results['img'].dtype == np.uint8 and results['img'].shape == image.shape
    assert not np.array_equal(results['img'], image)
    assert results['gt_seg_map'] is sample['gt_seg_map'] and np.array_equal(labels, results['gt_seg_map'])
    assert set(results) == {*sample, 'degradation'}
    assert np.array_equal(sample['img'], image)  # a cached sample must not be changed in place
    assert np.array_equal(applying.apply(image, results['degradation']), results['img'])
    assert 40 <= next(step for step in results['degradation']['steps'] if step['op'] == 'jpeg')['quality'] <= 50


def test_it_uses_one_draw_from_the_global_generator(sample):
    transform = transforms.LQDegradation()
    outcomes, followers = [], []
    for prob in (1.0, 1.0, 0.0):
        transform.prob = prob
        np.random.seed(7)
        outcomes.append(transform(dict(sample))['img'])
        followers.append(np.random.rand())
    assert np.array_equal(outcomes[0], outcomes[1])
    assert followers[0] == followers[1] == followers[2]
    assert not np.array_equal(transforms.LQDegradation()(dict(sample))['img'], outcomes[0])


def test_images_are_degraded_with_probability_prob(sample):
    np.random.seed(0)
    transform = transforms.LQDegradation(prob=0.5)
    results = [transform(dict(sample)) for _ in range(60)]
    assert 15 < sum(result['degradation'] is None for result in results) < 45
    assert all(np.array_equal(r['img'], sample['img']) == (r['degradation'] is None) for r in results)


def test_a_float_image_has_the_same_result_as_a_uint8_image(sample):
    transform = transforms.LQDegradation()
    np.random.seed(1)
    expected = transform(dict(sample))['img']
    np.random.seed(1)
    result = transform({**sample, 'img': sample['img'].astype(np.float32)})['img']
    assert result.dtype == np.uint8 and np.array_equal(result, expected)


def test_wrong_input_is_named(sample):
    with pytest.raises(DataError, match=r'\(40, 56\)'):
        transforms.LQDegradation()({'img': sample['gt_seg_map']})
    with pytest.raises(ConfigError, match='prob'):
        transforms.LQDegradation(prob=2)
    assert 'prob=1.0' in repr(transforms.LQDegradation())
