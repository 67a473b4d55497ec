"""Degradations of a chosen severity are fixed per image, and milder ones equal draws from narrower ranges."""

import json

import numpy as np
import pytest
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, TRANSFORMS
from torch.utils.data import DataLoader

from rass_mm.degradation import applying, drawing, recipe, severity
from rass_mm.degradation.planning import image_seed
from rass_mm.degradation.transforms import FixedDegradation
from rass_mm.errors import ConfigError, DataError

SIZE = (96, 128)


def drawn(seed):
    return drawing.draw(recipe.OSEDIFF, np.random.default_rng(seed), *SIZE)


def narrowed(stage, share):
    """Returns a stage with ranges that are narrowed by hand to the given share next to their mild ends."""

    def low(ends):
        return (ends[0], ends[0] + share * (ends[1] - ends[0]))

    changes = {name: low(getattr(stage, name)) for name in ('sigma', 'gaussian_sigma', 'poisson_scale')}
    changes['resize_scale'] = tuple(1 + share * (end - 1) for end in stage.resize_scale)
    best = stage.jpeg_quality[1]
    changes['jpeg_quality'] = (round(best - share * (best - stage.jpeg_quality[0])), best)
    return changes


def test_severity_one_equals_the_recipe():
    for seed in range(200):
        assert severity.scaled(drawn(seed), 1) == drawn(seed)
        assert severity.at_severity('mixed', 1, *SIZE, seed) == drawn(seed)


@pytest.mark.parametrize('share', [0.5, 0.2])
def test_a_milder_draw_equals_a_draw_from_narrower_ranges(share):
    """Compares with a recipe with ranges narrowed by hand, which uses the same numbers of the same generator."""
    changes = {'first': narrowed(recipe.OSEDIFF.first, share), 'second': narrowed(recipe.OSEDIFF.second, share)}
    milder = recipe.override(recipe.OSEDIFF, changes)
    compared = 0
    for seed in range(300):
        ours = severity.scaled(drawn(seed), share)['steps']
        theirs = drawing.draw(milder, np.random.default_rng(seed), *SIZE)['steps']
        for one, other in zip(ours, theirs, strict=True):
            assert one.keys() == other.keys()
            if one['op'] == 'jpeg':
                assert abs(one.pop('quality') - other.pop('quality')) <= 1  # rounded before or after drawing
            if 'omega' in one:  # the recipe has no setting for the range of the cut-offs
                assert np.pi - one.pop('omega') == pytest.approx(share * (np.pi - other.pop('omega')))
            assert one == pytest.approx(other)
            compared += 1
    assert compared > 2000


def test_severity_zero_is_the_mild_end_and_keeps_the_choices():
    for seed in range(100):
        for step, full in zip(severity.scaled(drawn(seed), 0)['steps'], drawn(seed)['steps'], strict=True):
            stage = recipe.OSEDIFF.first if step['stage'] == 1 else recipe.OSEDIFF.second
            mild = {'sigma_x': stage.sigma[0], 'sigma_y': stage.sigma[0], 'omega': np.pi, 'quality': 95}
            mild |= {'scale': 0.05, 'sigma': 1.0} if step['op'] == 'noise' else {'scale': 1, 'height': 96, 'width': 128}
            for key, value in step.items():
                assert value == mild.get(key, full[key])


def test_an_image_gets_worse_with_severity_and_is_reproduced_from_json():
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(40, 216, (12, 16, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))

    def error(kind, amount):
        errors = []
        for seed in range(6):
            parameters = severity.at_severity(kind, amount, *SIZE, seed)
            result = applying.apply(image, json.loads(json.dumps(parameters)))
            errors.append(np.abs(result.astype(float) - image).mean())
        return np.mean(errors)

    for kind in severity.KINDS:
        errors = [error(kind, amount) for amount in (0, 0.25, 0.5, 0.75, 1)]
        assert errors == sorted(errors) and errors[-1] > errors[0] + 2, kind


def test_parameters_are_those_of_the_recipe():
    ends = {'blur': (0.2, 3.0), 'downscale': (1.0, 0.15), 'gaussian': (1, 30), 'poisson': (0.05, 3), 'jpeg': (95, 30)}
    for kind in severity.SINGLES:
        assert [severity.parameter(kind, end) for end in (0, 1)] == pytest.approx(ends[kind])
    assert severity.parameter('mixed', 0.5) is None and severity.parameter_text('mixed', None) == ''
    assert severity.parameter_text('blur', severity.parameter('blur', 0.25)) == '0.9 px'


def test_impossible_severities_are_refused():
    for wrong in (-0.1, 1.5):
        with pytest.raises(ConfigError, match='0 to 1'):
            severity.scaled(drawn(0), wrong)
        with pytest.raises(ConfigError, match='0 to 1'):
            FixedDegradation('blur', wrong)
    with pytest.raises(ConfigError, match='fog'):
        FixedDegradation('fog', 0.5)
    with pytest.raises(DataError, match='FixedDegradation needs a BGR image'):
        FixedDegradation('blur', 0.5)({'img': np.zeros((8, 8), np.uint8), 'img_path': 'a.png'})


def test_the_transform_depends_only_on_seed_and_name():
    image = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)

    def result(path, seed=0, folder=None, kind='mixed', pixels=image):
        step = {'type': 'FixedDegradation', 'kind': kind, 'severity': 0.8, 'seed': seed, 'folder': folder}
        return TRANSFORMS.build(step)({'img': pixels, 'img_path': path})['img']

    before = image.copy()
    first = result('here/b/a.png')
    np.random.seed(5)
    assert np.array_equal(first, result('there/a.png'))
    assert np.array_equal(first, result('here/b/a.png', pixels=image.astype(np.float32)))
    assert np.array_equal(result('here/b/a.png', folder='here'), result('x/y/b/a.png', folder='x/y'))
    parameters = severity.at_severity('mixed', 0.8, *SIZE, image_seed(0, 'b/a.png'))
    assert np.array_equal(result('here/b/a.png', folder='here'), applying.apply(image, parameters))
    for other in (result('here/c.png'), result('here/b/a.png', seed=1), result('here/b/a.png', folder='here')):
        assert not np.array_equal(first, other)
    assert result('a.png', kind=None) is image and np.array_equal(image, before)
    assert 'mixed' in repr(FixedDegradation('mixed', 1))


def test_workers_order_and_passes_change_nothing(scenes):
    init_default_scope('mmseg')
    steps = [{'type': 'LoadImageFromFile'}, {'type': 'FixedDegradation', 'kind': 'gaussian', 'severity': 0.5}]
    prefix = {'img_path': 'img_dir/val', 'seg_map_path': 'ann_dir/val'}
    data = {'type': 'ScenesDataset', 'data_root': str(scenes), 'data_prefix': prefix, 'test_mode': True}
    dataset = DATASETS.build({**data, 'pipeline': [*steps, {'type': 'PackSegInputs'}]})

    def pixels(workers, shuffle=False):
        loader = DataLoader(dataset, 1, shuffle, num_workers=workers, collate_fn=pseudo_collate)
        return {batch['data_samples'][0].img_path: batch['inputs'][0] for batch in loader}

    alone = pixels(0)
    assert len(alone) == 4
    for other in (pixels(2), pixels(0, shuffle=True)):
        assert all(np.array_equal(alone[path], other[path]) for path in alone)
    dataset.pipeline.transforms[1].set('gaussian', 0.25)  # takes effect in the workers of the next pass
    milder = pixels(2)
    assert not any(np.array_equal(alone[path], milder[path]) for path in alone)
