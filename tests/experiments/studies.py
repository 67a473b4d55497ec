"""Made-up studies whose differences are known, and their mIoU with loops."""

import numpy as np

from experiments.counts import Counts, pooled_miou
from experiments.statistics import Pair

CLASSES = 4


def system_counts(rng, truth, rates):
    """Pixel counts of a system that finds a share of the pixels of each class and invents 5 % of the others."""
    right = rng.binomial(truth, np.clip(rates, 0, 1))
    wrong = rng.binomial(truth.sum(1, keepdims=True) - truth, 0.05)
    return Counts(np.array([f'{i:03}' for i in range(len(truth))]), right, right + wrong, truth)


def study(rng, images, seed_spread=0.02, image_spread_=0.06, seeds=3, block=1):
    """Two systems on the same images: images differ in difficulty, the systems by image, and trainings by chance.

    All images of a `block` are equally difficult.
    """
    truth = rng.integers(0, 400, (images, CLASSES))
    hard, apart = rng.normal(0, image_spread_, (2, images // block, 1)).repeat(block, 1)
    return [
        Pair(
            system_counts(rng, truth, 0.55 + hard + apart + rng.normal(0, seed_spread)),
            system_counts(rng, truth, 0.5 + hard + rng.normal(0, seed_spread)),
        )
        for _ in range(seeds)
    ]


def by_hand(counts_):
    """mIoU (%) with loops."""
    values = []
    for k in range(counts_.truth.shape[1]):
        right, predicted, true = (sum(int(v) for v in part[:, k]) for part in counts_[1:])
        if predicted + true:
            values.append(right / (predicted + true - right))
    return 100 * sum(values) / len(values)


def means(pairs):
    return [pooled_miou(pair.better) - pooled_miou(pair.worse) for pair in pairs]


def differences(pairs):
    return [by_hand(pair.better) - by_hand(pair.worse) for pair in pairs]
