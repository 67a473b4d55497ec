"""Components of a sweep: its config, comparisons of curves, and plots of few or many points."""

import copy
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from rass_mm.analysis.robustness.curve import Curve, check_comparable, differences, open_curve, read_curve
from rass_mm.analysis.robustness.plot import draw_curves
from rass_mm.analysis.robustness.report import report
from rass_mm.analysis.robustness.sweep import Sweep, sweep_config
from rass_mm.config import load_config
from rass_mm.errors import ConfigError, DataError

CONFIGS = (
    'rass/rass_scenes_tiny.py',
    'baselines/resnet_scenes_tiny.py',
    'baselines/resnet_scenes_tiny_r2s.py',
    'rass/rass_camvid_tiny.py',
)


@pytest.fixture
def camvid(tmp_path):
    """Two pictures in the layout and file types of CamVid."""
    rng = np.random.default_rng(0)
    for name in ('one', 'two'):
        for folder, suffix, image in (
            ('img_dir', '.jpg', rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)),
            ('ann_dir', '.png', rng.integers(0, 11, (48, 64), dtype=np.uint8)),
        ):
            (tmp_path / folder / 'val').mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / 'val' / (name + suffix)), image)
    return tmp_path


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_differ_in_the_degradation_only_and_models_see_the_same_pixels(name, scenes, camvid):
    root = camvid if 'camvid' in name else scenes
    config = load_config(name, {'test_dataloader.dataset.data_root': str(root)})
    swept = sweep_config(config, Sweep(seed=3, limit=2, recipe_version=1))
    types = [step['type'] for step in swept.test_dataloader.dataset.pipeline]
    assert types == ['LoadImageStrict', 'FixedDegradation', 'LoadLabelStrict', 'PackSegInputs']
    assert swept.model == config.model and 'img_lq' in config.test_dataloader.dataset.data_prefix.img_path
    assert config.test_evaluator.type == 'IoUMetric' and not swept.test_dataloader.persistent_workers
    init_default_scope('mmseg')
    dataset = DATASETS.build(swept.test_dataloader.dataset)
    assert len(dataset) == 2
    degradation = dataset.pipeline.transforms[1]
    clean = dataset[0]['inputs']
    image = cv2.imread(dataset.get_data_info(0)['img_path'])
    assert np.array_equal(clean.permute(1, 2, 0), image)
    assert degradation.recipe.version == 1
    degradation.set('poisson', 1.0)
    degraded = dataset[0]['inputs']
    assert degraded.shape == clean.shape and not torch.equal(degraded, clean)
    first = copy.deepcopy(swept)
    first.merge_from_dict({'model': load_config(CONFIGS[1]).model})  # another model, the same data
    other = DATASETS.build(first.test_dataloader.dataset)
    other.pipeline.transforms[1].set('poisson', 1.0)
    assert torch.equal(other[0]['inputs'], degraded)


def test_the_rule_of_the_mean_is_kept(scenes):
    options = {'test_evaluator.type': 'MeanIoUMetric', 'test_evaluator.mean_over': 'present'}
    config = load_config(CONFIGS[1], {'test_dataloader.dataset.data_root': str(scenes), **options})
    expected = {'type': 'PerClassIoUMetric', 'iou_metrics': ['mIoU'], 'mean_over': 'present'}
    assert sweep_config(config, Sweep()).test_evaluator == expected


def test_a_config_that_does_not_fit_is_refused(scenes):
    config = load_config(CONFIGS[1], {'test_dataloader.dataset.data_root': str(scenes)})
    config.test_dataloader.dataset.pipeline = config.test_dataloader.dataset.pipeline[1:]
    with pytest.raises(ConfigError, match='no step that loads the image'):
        sweep_config(config, Sweep())
    config.test_dataloader.dataset = {'type': 'ConcatDataset', 'datasets': []}
    with pytest.raises(ConfigError, match='plain data set'):
        sweep_config(config, Sweep())


def header(name, **changes):
    data = {
        'type': 'CamVidDataset',
        'img_path': 'img_dir/val',
        'images': 101,
        'limited': True,
        'sha256': 'd',
        'classes': ['sky', 'car'],
    }
    given = {'format': 'rass_mm robustness curve, 1', 'name': name, 'config': 'own.py', 'seed': 0, 'settings': {'a': 1}}
    return {**given, 'checkpoint': {'name': 'x.pth', 'sha256': 'c'}, 'data': data, **changes}


def make(path, name, values, **changes):
    """Writes a curve file with the given values {(kind, severity): mIoU}."""
    curve = Curve(path / f'{name}.json', header(name, **changes))
    curve.begin({'command': f'rass-mm robustness {name}', 'device': 'cpu', 'versions': {}})
    for (kind, severity), value in values.items():
        curve.add({'kind': kind, 'severity': severity, 'parameter': None, 'mIoU': value})
    return curve


def test_a_file_holds_what_was_added(tmp_path):
    made = make(tmp_path, 'A', {('clean', None): 50.0, ('blur', 0.5): 40.0})
    curve = open_curve(made.path, header('A'))
    assert curve == read_curve(made.path) == made
    assert curve.missing([('clean', None), ('blur', 0.5), ('blur', 1.0)]) == [('blur', 1.0)]
    curve.begin({'command': 'again', 'device': 'cuda', 'versions': {}})
    curve.add({'kind': 'blur', 'severity': 1.0, 'mIoU': 30.0})
    record = json.loads(made.path.read_text())
    assert [run['device'] for run in record['runs']] == ['cpu', 'cuda'] and record['points'][-1]['run'] == 1


def test_damaged_and_foreign_files_are_named(tmp_path):
    file = tmp_path / 'a.json'
    for text, message in (
        ('{', 'cannot be read'),
        ('[]', 'is not a robustness curve'),
        ('{"format": "x"}', 'is not a robustness curve'),
    ):
        file.write_text(text)
        with pytest.raises(DataError, match=message):
            read_curve(file)
    make(tmp_path, 'a', {('clean', None): 1.0})
    file.write_text(json.dumps({**json.loads(file.read_text()), 'points': []}))
    with pytest.raises(DataError, match='no points'):
        read_curve(file)


def test_curves_of_other_images_or_draws_are_not_compared(tmp_path):
    point = {('clean', None): 1.0}
    first = make(tmp_path, 'A', point)
    check_comparable([first, make(tmp_path, 'B', point, settings={'a': 2}, checkpoint={'name': 'y', 'sha256': 'e'})])
    for changes, named in (({'seed': 1}, 'seed: 0, now 1'), ({'data': {**first.header['data'], 'images': 9}}, '101')):
        with pytest.raises(DataError, match=named):
            check_comparable([first, make(tmp_path, 'C', point, **changes)])


def published(name, path, rule='present'):
    evaluator = {'type': 'PerClassIoUMetric', 'iou_metrics': ['mIoU'], 'mean_over': rule}
    return make(path, name, {('clean', None): 1.0}, settings={'evaluator': evaluator})


def test_curves_of_another_mean_are_not_compared_and_say_which_it_is(tmp_path):
    plain = make(tmp_path, 'A', {('clean', None): 1.0})
    check_comparable([plain, published('B', tmp_path, rule='all')])
    with pytest.raises(DataError, match='mean_over: all, now present'):
        check_comparable([plain, published('C', tmp_path)])
    assert '2 classes (mean over classes with labelled pixels), draws' in report([published('D', tmp_path)])
    assert 'mean over' not in report([plain])


def test_recipe_versions_are_not_mixed_and_old_files_are_of_version_1(tmp_path):
    old = make(tmp_path, 'A', {('clean', None): 1.0})  # has no version
    with pytest.raises(DataError, match=r'recipe_version: 1, now 2\n.*or use its settings \(--recipe-version 1\)'):
        open_curve(old.path, header('A', recipe_version=2))
    resumed = open_curve(old.path, header('A', recipe_version=1))
    assert resumed.points == old.points and resumed.header['recipe_version'] == 1
    one, two = (make(tmp_path, name, {('clean', None): 1.0}, recipe_version=n) for name, n in (('B', 1), ('C', 2)))
    check_comparable([old, one])
    with pytest.raises(DataError, match='recipe_version: 1, now 2\nTest both .* --recipe-version'):
        check_comparable([old, two])
    assert 'recipe version 1. One' in report([old, one]) and 'recipe version 2. One' in report([two])


def test_many_differences_are_cut_short():
    text = differences({str(i): i for i in range(20)}, {})
    assert text.count('now None') == 8 and text.endswith('and 12 more')


@pytest.mark.parametrize('points', ['clean only', 'one', 'all', 'many models'])
def test_tables_and_pictures_of_any_number_of_points(tmp_path, points):
    clean = {('clean', None): 60.0}
    kinds = ('blur', 'downscale', 'gaussian', 'poisson', 'jpeg', 'mixed')
    every = {(kind, i / 10): 60.0 - 5 * i for kind in kinds for i in range(11)}
    curves = {
        'clean only': [make(tmp_path, 'A', clean)],
        'one': [make(tmp_path, 'A', {('mixed', 1.0): 3.0})],
        'all': [make(tmp_path, 'A', {**clean, **every}), make(tmp_path, 'B', {('blur', 0.0): 55.0})],
        'many models': [make(tmp_path, f'model {i}', {**clean, ('jpeg', 0.5): 4.0 * i}) for i in range(9)],
    }[points]
    text = report(curves)
    assert all(f'| {curve.name} ' in text for curve in curves)
    assert 'of the first 101 images (CamVidDataset, img_dir/val), 2 classes, draws of seed 0' in text
    assert ('60.00' in text) == (points != 'one') and 'rass-mm robustness' in text
    draw_curves(tmp_path / 'plot.png', curves)
    first = (tmp_path / 'plot.png').read_bytes()
    assert cv2.imdecode(np.frombuffer(first, np.uint8), 1).shape[0] > 300
    draw_curves(tmp_path / 'plot.png', curves)
    assert (tmp_path / 'plot.png').read_bytes() == first
