"""LQDegradation as part of an mmseg pipeline."""

import numpy as np
import pytest
from mmseg.registry import TRANSFORMS

from rass_mm.degradation import applying, drawing, transforms
from rass_mm.degradation.recipe import OSEDIFF, override
from rass_mm.degradation.severity import scaled
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


def degraded(sample, seed=3, **options):
    """The parameters, the image, and the next number of the global generator."""
    np.random.seed(seed)
    results = transforms.LQDegradation(**options)(dict(sample))
    return results['degradation'], results['img'], np.random.rand()


def recipe_of(seed, version=2):
    """Draws of the recipe alone, and the severity drawn after them."""
    np.random.seed(seed)
    rng = np.random.default_rng(np.random.randint(2**32, dtype=np.int64))
    rng.random()  # against prob
    drawn = drawing.draw(override(OSEDIFF, {'version': version}), rng, 40, 56)
    return drawn, rng.uniform(0.25, 0.75)


@pytest.mark.parametrize('options', [{}, {'severity': 1}, {'severity': [1.0, 1.0]}])
@pytest.mark.parametrize('version', [1, 2])
def test_severity_one_is_the_recipe_to_the_bit(sample, options, version):
    for seed in range(10):
        expected, _ = recipe_of(seed, version)
        parameters, image, _ = degraded(sample, seed, recipe={'version': version}, **options)
        assert parameters == expected and np.array_equal(image, applying.apply(sample['img'], expected))


def test_a_range_of_severities_makes_the_same_draws_milder(sample):
    severities = []
    for seed in range(40):
        drawn, severity = recipe_of(seed)
        parameters, image, follower = degraded(sample, seed, severity=(0.25, 0.75))
        assert parameters == scaled(drawn, severity)
        assert np.array_equal(image, applying.apply(sample['img'], parameters))
        assert follower == degraded(sample, seed)[2]  # transforms that follow do not depend on it
        severities.append(severity)
        assert degraded(sample, seed, severity=0.5)[0] == scaled(drawn, 0.5)
    assert 0.25 <= min(severities) < 0.35 and 0.65 < max(severities) <= 0.75


WRONG = (-0.1, 1.5, (0.5, 0.2), (0, 0.5, 1), (0.5,), 'mild', ('a', 'b'), True, None, float('nan'))


@pytest.mark.parametrize('wrong', WRONG)
def test_wrong_severities_are_named(sample, wrong):
    with pytest.raises(ConfigError, match='LQDegradation: severity is .*range 0 to 1, or a range'):
        transforms.LQDegradation(severity=wrong)
    assert 'severity=(0, 0.5)' in repr(transforms.LQDegradation(severity=[0, 0.5]))


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
