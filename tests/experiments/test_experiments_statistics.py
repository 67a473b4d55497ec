"""Intervals and corrections beside independent formulas, and the share of intervals that hold a known difference."""

import math

import numpy as np
import pytest
from scipy import stats
from studies import means, study

from experiments.counts import Counts, pooled_miou
from experiments.results import Comparison
from experiments.statistics import (
    Pair,
    Spread,
    confidence_interval,
    corrected,
    frame_blocks,
    image_spread,
    p_value,
    standard_error,
)
from rass_mm.errors import DataError


@pytest.mark.parametrize(('seed_spread', 'image_spread_', 'fails'), [(0.03, 0.03, 'images'), (0.004, 0.1, 'seeds')])
def test_intervals_hold_a_known_difference_in_about_95_percent(seed_spread, image_spread_, fails):
    """Percentiles of a bootstrap do not, and nor do those of the seeds or of the images alone where the others vary."""
    rng = np.random.default_rng(2)
    truth = np.mean([np.mean(means(study(rng, 400, seed_spread, image_spread_))) for _ in range(150)])
    held = {'both': 0, 'seeds': 0, 'images': 0, 'percentiles': 0}
    for _ in range(250):
        pairs = study(rng, 40, seed_spread, image_spread_)
        found, spread = means(pairs), image_spread(pairs, range(40), 100)
        drawn = rng.choice(found, (200, 3)).mean(1) + rng.normal(0, math.sqrt(spread.variance), 200)
        half = 1.96 * math.sqrt(spread.variance)
        intervals = {
            'both': confidence_interval(found, spread),
            'seeds': confidence_interval(found),
            'images': (np.mean(found) - half, np.mean(found) + half),
            'percentiles': np.quantile(drawn, [0.025, 0.975]),
        }
        for name, (low, high) in intervals.items():
            held[name] += low <= truth <= high
    shares = {name: number / 250 for name, number in held.items()}
    assert 0.91 <= shares['both'] <= 0.985 and shares[fails] < 0.8, shares
    assert fails == 'seeds' or shares['percentiles'] < 0.9, shares


def test_intervals_over_blocks_hold_a_known_difference_of_frames_that_resemble_each_other():
    """Frames of a block are equally difficult. As independent images, they give intervals that are too narrow."""
    rng = np.random.default_rng(8)
    truth = np.mean([np.mean(means(study(rng, 400, 0.004, 0.1, block=10))) for _ in range(150)])
    names = [f'drive_{number:03}' for number in range(360)]
    held = {'blocks': 0, 'images': 0}
    for _ in range(250):
        pairs = study(rng, 360, 0.004, 0.1, block=10)
        for name, blocks in (('blocks', frame_blocks(names)), ('images', range(360))):
            low, high = confidence_interval(means(pairs), image_spread(pairs, blocks, 100))
            held[name] += low <= truth <= high
    shares = {name: number / 250 for name, number in held.items()}
    assert 0.91 <= shares['blocks'] <= 0.985 and shares['images'] < 0.8, shares


def test_spread_over_images_is_the_plain_bootstraps():
    """With loops, without blocks: one draw of images for both systems and for all seeds."""
    rng = np.random.default_rng(0)
    pairs = study(rng, 30)
    means = []
    for _ in range(1500):
        chosen = rng.integers(0, 30, 30)
        drawn = [Pair(*(Counts(*(part[chosen] for part in system)) for system in pair)) for pair in pairs]
        means.append(np.mean([pooled_miou(pair.better) - pooled_miou(pair.worse) for pair in drawn]))
    found = image_spread(pairs, range(30))
    assert found.blocks == 30 and found.variance == pytest.approx(np.var(means) * 30 / 29, rel=0.15)


def test_variance_over_three_blocks_is_unbiased():
    """With one class and equal unions, mIoU is a mean over the blocks, whose variance is s^2 / 3, not a third less."""
    truth = np.full((3, 1), 100)
    names, none = np.array(['a', 'b', 'c']), np.zeros((3, 1), int)
    right = np.array([[20], [50], [90]])
    found = image_spread([Pair(Counts(names, right, right, truth), Counts(names, none, none, truth))], range(3), 20000)
    assert found.blocks == 3 and found.variance == pytest.approx(np.var([20, 50, 90], ddof=1) / 3, rel=0.06)


def test_one_block_has_no_interval():
    with pytest.raises(DataError, match='All 8 validation images form one block; an interval requires at least two'):
        image_spread(study(np.random.default_rng(1), 8), [4] * 8)


def test_variance_is_that_of_a_hierarchical_bootstrap_with_its_small_sample_correction():
    """Seeds drawn with replacement, then images; s^2 / n^2 is what resampling n seeds leaves out of s^2 / n."""
    rng = np.random.default_rng(4)
    pairs = study(rng, 60, 0.02, 0.1)
    drawn = []
    for _ in range(3000):
        chosen = rng.integers(0, 60, 60)
        seeds = rng.integers(0, 3, 3)
        sums = [[[part[chosen].sum(0) for part in system[1:]] for system in pairs[seed]] for seed in seeds]
        right, predicted, true = np.moveaxis(np.array(sums, float), 2, 0)
        scores = 100 * (right / (predicted + true - right)).mean(-1)
        drawn.append((scores[:, 0] - scores[:, 1]).mean())
    found = means(pairs)
    error, _ = standard_error(found, image_spread(pairs, range(60)))
    assert error**2 == pytest.approx(np.var(drawn) + np.var(found, ddof=1) / 9, rel=0.15)


def test_images_of_a_block_are_drawn_together():
    """Copies of an image in one block bring no information; as independent images, they would."""
    few = study(np.random.default_rng(1), 12)
    many = [Pair(*(Counts(*(np.repeat(part, 8, 0) for part in system)) for system in pair)) for pair in few]
    alone = image_spread(few, range(12)).variance
    assert image_spread(many, np.repeat(np.arange(12), 8)).variance == pytest.approx(alone)
    assert image_spread(many, range(96)).variance < 0.3 * alone


def test_blocks_are_consecutive_frames_of_one_drive():
    names = [f'0001TP_{n:06}' for n in range(5)] + [f'Seq05VD_f{n:05}' for n in range(4)]
    mixed = [names[i] for i in (5, 0, 1, 8, 2, 7, 3, 6, 4)]
    blocks = dict(zip(mixed, frame_blocks(mixed, 2), strict=True))
    together = [[blocks[name] for name in names[i:j]] for i, j in ((0, 2), (2, 4), (4, 5), (5, 7), (7, 9))]
    assert all(len(set(block)) == 1 for block in together) and len(set(blocks.values())) == 5


def test_interval_and_p_value_by_the_formulas_of_welch_and_satterthwaite():
    found, spread = (3.0, 1.0, 2.5), Spread(0.4, 38)
    mean = sum(found) / 3
    seeds = sum((d - mean) ** 2 for d in found) / 2 / 3
    error = math.sqrt(seeds + 0.4)
    freedom = (seeds + 0.4) ** 2 / (seeds**2 / 2 + 0.4**2 / 37)
    half = stats.t.ppf(0.975, freedom) * error
    assert confidence_interval(found, spread) == pytest.approx((mean - half, mean + half))
    assert p_value(found, spread) == pytest.approx(2 * (1 - stats.t.cdf(mean / error, freedom)))
    assert p_value(found) == pytest.approx(stats.ttest_1samp(found, 0).pvalue)
    assert p_value((0.0, 0.0)) == 1.0 and p_value((1.0, 1.0)) == 0.0


def test_correction_is_that_of_benjamini_and_hochberg():
    """q of rank i is the smallest p * n / j over all ranks j >= i."""
    values = [0.2, 0.01, 0.04, 0.03, 0.9, 0.013]
    ordered = sorted(values)
    known = {p: min(1.0, *(ordered[j] * 6 / (j + 1) for j in range(i, 6)), 1.0) for i, p in enumerate(ordered)}
    assert corrected(values) == pytest.approx([known[p] for p in values])
    assert [round(q, 3) for q in corrected(values)] == [0.24, 0.039, 0.06, 0.06, 0.9, 0.039]
    assert corrected([]) == []


@pytest.mark.parametrize(
    ('differences_', 'value', 'verdict'),
    [
        ((2.0, 3.0, 2.5), 0.04, 'yes'),
        ((-2.0, -3.0, -2.5), 0.04, 'no, reversed'),
        ((2.0, 3.0, 2.5), 0.06, 'unclear'),
        ((2.0, 3.0), None, 'unclear: 2 of 3 seeds run'),
    ],
)
def test_verdict_needs_the_corrected_p_value_and_all_seeds(differences_, value, verdict):
    assert Comparison(tuple(range(len(differences_))), differences_).verdict(value) == verdict
