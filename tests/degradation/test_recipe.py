"""Low-quality recipe, compared with independent references: mmagic's kernels, scipy's formulas, the theory of noise."""

import json

import cv2
import numpy as np
import pytest
from scipy.special import j1

from rass_mm.degradation import applying, drawing, kernels, recipe, severity
from rass_mm.errors import ConfigError, DataError

SHAPES = [(7, 0.2, 3.0, 0.4, 0.5), (13, 1.7, 0.6, -2.8, 1.0), (21, 2.9, 2.1, 1.1, 3.7)]


@pytest.fixture(scope='module')
def mmagic_transforms():
    compat = pytest.importorskip('rass_mm.compat')
    compat.prepare_mmagic()
    transforms = pytest.importorskip('mmagic.datasets.transforms', exc_type=ImportError)
    return transforms


@pytest.fixture
def picture():
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)


def draws(count, **changes):
    rng = np.random.default_rng(0)
    settings = recipe.override(recipe.OSEDIFF, changes)
    return [drawing.draw(settings, rng, 400, 600)['steps'] for _ in range(count)]


def of(all_steps, op, stage):
    return [step for steps in all_steps for step in steps if step['op'] == op and step['stage'] == stage]


@pytest.mark.parametrize('size, sigma_x, sigma_y, rotation, beta', SHAPES)
def test_kernels_equal_mmagic(mmagic_transforms, size, sigma_x, sigma_y, rotation, beta):
    reference = mmagic_transforms.blur_kernels
    shape = (size, sigma_x, sigma_y, rotation)
    for ours, theirs in [
        (kernels.gaussian(*shape), reference.bivariate_gaussian(*shape, is_isotropic=False)),
        (kernels.gaussian(size, sigma_x, sigma_x), reference.bivariate_gaussian(size, sigma_x)),
        (
            kernels.generalized_gaussian(*shape, beta),
            reference.bivariate_generalized_gaussian(*shape, beta, is_isotropic=False),
        ),
        (kernels.plateau(*shape, beta), reference.bivariate_plateau(*shape, beta, is_isotropic=False)),
    ]:
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    omega = np.pi / (1 + beta)
    theirs = reference.random_circular_lowpass_kernel((omega, omega), size)
    np.testing.assert_allclose(kernels.sinc(size, omega), theirs, atol=1e-6)


@pytest.mark.parametrize('size, omega', [(7, np.pi / 3), (21, 2.0), (1, 1.0)])
def test_sinc_equals_the_bessel_formula(size, omega):
    middle = size // 2
    reference = np.full((size, size), omega**2 / (4 * np.pi))
    for row in range(size):
        for column in range(size):
            r = np.sqrt((row - middle) ** 2 + (column - middle) ** 2)
            if r:
                reference[row, column] = omega * j1(omega * r) / (2 * np.pi * r)
    np.testing.assert_allclose(kernels.sinc(size, omega), reference / reference.sum(), rtol=1e-10)
    assert kernels.sinc(size, omega).sum() == pytest.approx(1)


def test_an_even_kernel_is_refused():
    with pytest.raises(ConfigError, match='odd'):
        kernels.gaussian(8, 1.0, 1.0)


@pytest.mark.parametrize('grey', [False, True])
def test_gaussian_noise_has_its_sigma(grey):
    image = np.full((200, 300, 3), 128, np.uint8)
    step = {'op': 'noise', 'kind': 'gaussian', 'sigma': 12.0, 'grey': grey, 'seed': 5}
    noisy = applying.apply(image, {'height': 200, 'width': 300, 'steps': [step]}).astype(np.float64)
    assert noisy.std() == pytest.approx(np.hypot(12, np.sqrt(1 / 12)), rel=0.02)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    assert (np.ptp(noisy, axis=2).max() == 0) == grey


@pytest.mark.parametrize('grey', [False, True])
@pytest.mark.parametrize('kind', ['gaussian', 'poisson'])
def test_noise_replays_its_formula_bit_by_bit(picture, kind, grey):
    step = {'op': 'noise', 'kind': kind, 'sigma': 20.0, 'scale': 0.4, 'grey': grey, 'seed': 11}
    clean, rng = picture.astype(np.float32) / 255, np.random.default_rng(11)
    if kind == 'gaussian':
        noise = rng.standard_normal((48, 64, 1 if grey else 3), dtype=np.float32) * np.float32(20.0 / 255)
    else:
        source = cv2.cvtColor(clean, cv2.COLOR_BGR2GRAY)[..., None] if grey else clean
        levels = np.rint(source * 255).astype(np.uint8)
        counts = next(2**power for power in range(9) if 2**power >= len(np.unique(levels)))
        noise = ((rng.poisson(levels / 255.0 * counts) / counts - levels / 255.0) * 0.4).astype(np.float32)
    expected = np.rint(np.clip(clean + noise, 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(applying.apply(picture, {'height': 48, 'width': 64, 'steps': [step]}), expected)


def test_poisson_noise_has_the_variance_of_its_counts():
    levels = np.array([0, 40, 80, 120, 200, 255])  # six levels, so eight counts at 1
    image = np.repeat(levels / 255, 40000).reshape(6, 40000)
    noise = applying.poisson_noise(image, np.random.default_rng(0))
    assert noise.dtype == np.float64
    np.testing.assert_allclose(noise.mean(axis=1), 0, atol=0.01)
    np.testing.assert_allclose(noise.var(axis=1), levels / 255 / 8, rtol=0.03)


def test_grey_poisson_noise_follows_the_luma():
    image = np.full((300, 300, 3), (40, 160, 90), np.uint8)
    step = {'op': 'noise', 'kind': 'poisson', 'scale': 0.05, 'grey': True, 'seed': 1}
    noisy = applying.apply(image, {'height': 300, 'width': 300, 'steps': [step]}).astype(np.float64) - image
    luma = round(0.114 * 40 + 0.587 * 160 + 0.299 * 90) / 255
    assert np.ptp(noisy, axis=2).max() <= 1  # the same noise, rounded from three different values
    assert noisy.std() == pytest.approx(0.05 * 255 * np.sqrt(luma), rel=0.03)  # one level, so one count


def test_mmagic_poisson_is_weaker_by_the_root_of_255(mmagic_transforms):
    image = np.full((300, 300, 3), 128, np.uint8)
    settings = {'noise_type': ['poisson'], 'noise_prob': [1], 'poisson_scale': [1, 1], 'poisson_gray_noise_prob': 0}
    np.random.seed(0)
    theirs = mmagic_transforms.RandomNoise(settings, ['img'])({'img': image.astype(np.float32)})['img'] - 128
    ours = applying.poisson_noise(image / 255, np.random.default_rng(0)) * 255
    assert ours.std() / theirs.std() == pytest.approx(np.sqrt(255), rel=0.02)


def test_mmagic_shuffle_depends_on_the_previous_images(mmagic_transforms, picture):
    def run(seeds):
        sinc = {'kernel_list': ['sinc'], 'kernel_prob': [1], 'kernel_size': [21], 'omega': [1, 1]}
        steps = [
            {'type': 'RandomBlur', 'params': sinc},
            {'type': 'RandomJPEGCompression', 'params': {'quality': [9, 9]}},
        ]
        shuffle = mmagic_transforms.DegradationsWithShuffle(steps, ['img'])
        for seed in seeds:
            np.random.seed(seed)
            result = shuffle({'img': picture})['img']
        return result

    assert any(not np.array_equal(run([5]), run([before, 5])) for before in range(4))


def test_draws_stay_in_the_ranges_of_the_paper():
    steps = draws(3000)
    for stage, sigma_high, (low, high), noise_high, poisson_high in [
        (1, 3.0, (0.15, 1.5), 30, 3.0),
        (2, 1.5, (0.3, 1.2), 25, 2.5),
    ]:
        blurs = of(steps, 'blur', stage)
        assert {blur['size'] for blur in blurs} == set(range(7, 22, 2))
        for blur in blurs:
            if blur['kernel'] == 'sinc':
                assert np.pi / (3 if blur['size'] < 13 else 5) <= blur['omega'] <= np.pi
                continue
            assert 0.2 <= min(blur['sigma_x'], blur['sigma_y']) <= max(blur['sigma_x'], blur['sigma_y']) <= sigma_high
            assert abs(blur['rotation']) <= np.pi
            if not blur['kernel'].endswith('aniso'):
                assert blur['sigma_x'] == blur['sigma_y']
        scales = [step['scale'] for step in of(steps, 'resize', stage)]
        assert low <= min(scales) < low + 0.01 and high - 0.02 < max(scales) <= high
        noises = of(steps, 'noise', stage)
        sigmas = [noise['sigma'] for noise in noises if noise['kind'] == 'gaussian']
        factors = [noise['scale'] for noise in noises if noise['kind'] == 'poisson']
        assert min(sigmas) >= 1 and noise_high - 0.5 < max(sigmas) <= noise_high
        assert min(factors) >= 0.05 and poisson_high - 0.05 < max(factors) <= poisson_high
        assert len({noise['seed'] for noise in noises}) == 3000
    for stage in (1, 'final'):
        qualities = [step['quality'] for step in of(steps, 'jpeg', stage)]
        assert (len(qualities), min(qualities), max(qualities)) == (3000, 30, 95)
    betas = np.array([b['beta'] for b in of(steps, 'blur', 1) if b['kernel'].startswith('generalized')])
    assert betas.min() >= 0.5 and 3.9 < betas.max() <= 4
    plateaus = np.array([b['beta'] for b in of(steps, 'blur', 1) if b['kernel'].startswith('plateau')])
    assert plateaus.min() == 1 and 1.9 < plateaus.max() <= 2
    assert min(b['omega'] for b in of(steps, 'blur', 'final')) >= np.pi / 3


def test_draws_have_the_frequencies_of_the_paper():
    count = 6000
    steps = draws(count)

    def share(records, condition):
        return pytest.approx(sum(map(condition, records)) / len(records), abs=0.03)

    for stage, blur_prob, resize_probs in [(1, 1.0, (0.2, 0.7, 0.1)), (2, 0.8, (0.3, 0.4, 0.3))]:
        blurs, noises = of(steps, 'blur', stage), of(steps, 'noise', stage)
        resizes = of(steps, 'resize', stage)
        assert len(blurs) / count == pytest.approx(blur_prob, abs=0.03)
        assert share(blurs, lambda b: b['kernel'] == 'sinc') == 0.1
        mixed = [blur for blur in blurs if blur['kernel'] != 'sinc']
        for kind, prob in zip(recipe.KERNELS, (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), strict=True):
            assert share(mixed, lambda b, kind=kind: b['kernel'] == kind) == prob
        for mode, prob in zip(('up', 'down', 'keep'), resize_probs, strict=True):
            assert share(resizes, lambda r, mode=mode: r['mode'] == mode) == prob
        for name in ('area', 'bilinear', 'bicubic'):
            assert share(resizes, lambda r, name=name: r['interpolation'] == name) == 1 / 3
        assert share(noises, lambda n: n['kind'] == 'gaussian') == 0.5
        assert share(noises, lambda n: n['grey']) == 0.4
        peaked = sum(b.get('beta', 1) < 1 for b in mixed) / sum(b['kernel'].startswith('generalized') for b in mixed)
        assert peaked == pytest.approx(0.5, abs=0.06)
    final = [[step for step in line if step['stage'] == 'final'] for line in steps]
    assert share(final, lambda f: any(step['op'] == 'blur' for step in f)) == 0.8
    assert share(final, lambda f: f[0]['op'] == 'jpeg') == 0.5


def test_both_resizes_are_relative_to_the_input_and_the_last_returns_to_it():
    for line in draws(50):
        resizes = [step for step in line if step['op'] == 'resize']
        for step in resizes:
            assert (step['height'], step['width']) == (int(400 * step['scale']), int(600 * step['scale']))
        assert (resizes[-1]['height'], resizes[-1]['width']) == (400, 600)


@pytest.mark.parametrize('height, width', [(1, 1), (1, 37), (8, 8), (23, 5), (48, 64)])
def test_a_manifest_line_reproduces_its_image_at_any_size(picture, height, width):
    image = np.ascontiguousarray(picture[:height, :width])
    for seed in range(8):
        drawn = drawing.draw(recipe.OSEDIFF, np.random.default_rng(seed), height, width)
        before = image.copy()
        result = applying.apply(image, drawn)
        assert result.shape == image.shape and result.dtype == np.uint8
        assert np.array_equal(image, before)
        assert np.array_equal(result, applying.apply(image, json.loads(json.dumps(drawn))))


def test_flipped_and_rotated_views_have_the_result_of_their_copies(picture):
    for view in (picture[:, ::-1], np.rot90(picture), picture[::2, 3:]):
        for seed in range(4):
            drawn = drawing.draw(recipe.OSEDIFF, np.random.default_rng(seed), *view.shape[:2])
            assert np.array_equal(applying.apply(view, drawn), applying.apply(view.copy(order='C'), drawn))


def test_parameters_of_another_image_are_refused(picture):
    drawn = drawing.draw(recipe.OSEDIFF, np.random.default_rng(0), 10, 10)
    with pytest.raises(DataError, match=r'\(10, 10, 3\)'):
        applying.apply(picture, drawn)


def test_overrides_change_only_what_they_name():
    changed = recipe.override(recipe.OSEDIFF, {'first': {'jpeg_quality': [60, 70]}, 'final_sinc_prob': 0})
    assert changed.first.jpeg_quality == (60, 70) and changed.second == recipe.OSEDIFF.second
    steps = draws(100, first={'jpeg_quality': [60, 70]}, final_sinc_prob=0)
    assert all(60 <= step['quality'] <= 70 for step in of(steps, 'jpeg', 1))
    assert not of(steps, 'blur', 'final')


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'third': {}}, 'unknown setting third. Choose from first'),
        ({'first': {'jpeg': 3}}, 'unknown setting jpeg'),
        ({'first': {'resize_probs': (0.5, 0.6, 0.1)}}, 'sum to 1'),
        ({'first': {'kernel_sizes': (8,)}}, 'odd'),
        ({'first': {'sigma': (2, 1)}}, 'low <= high'),
        ({'second': {'jpeg_quality': (0, 50)}}, 'jpeg_quality'),
        ({'final_sinc_prob': 1.5}, 'probability'),
    ],
)
def test_impossible_recipes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe.override(recipe.OSEDIFF, changes)


@pytest.mark.parametrize('kind', severity.SINGLES)
def test_single_degradations_grow_with_severity(picture, kind):
    def error(strength):
        drawn = severity.single(kind, strength, *picture.shape[:2])
        return np.abs(applying.apply(picture, drawn).astype(float) - picture).mean()

    errors = [error(strength) for strength in (0, 0.5, 1)]
    assert errors == sorted(errors) and errors[2] > errors[0] + 1


def test_an_unknown_single_degradation_is_refused():
    with pytest.raises(ConfigError, match='fog'):
        severity.single('fog', 0.5, 8, 8)
