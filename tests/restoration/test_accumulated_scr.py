"""Several batches per update of the restorer with its two optimizers, compared with one large batch."""

import copy

import pytest
import torch

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

from accumulated import distance, trained  # noqa: E402 - after the check for mmagic
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402

PLAIN = {'losses.constraint.loss_weight': 0.0}
SGD = {
    'type': 'OptimWrapper',
    'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9},
    'clip_grad': {'max_norm': 1.0},
}


@pytest.fixture
def same_noise(monkeypatch):
    """Gives all images the same noise and timestep, which depend on the number of the batch otherwise."""
    noise = torch.randn(1, 16, 64, 64, generator=torch.Generator().manual_seed(0))

    def randn_like(tensor):
        return noise[:, : tensor.shape[1], : tensor.shape[2], : tensor.shape[3]].expand_as(tensor).to(tensor)

    monkeypatch.setattr(torch, 'randn_like', randn_like)
    draw = torch.randint

    def randint(*args, device=None, generator=None):
        return torch.full(args[-1], 300, device=device) if generator is None else draw(*args, generator=generator)

    monkeypatch.setattr(torch, 'randint', randint)


def samples_of(count, size=32, equal=True):
    """Random pairs with labels. With `equal`, the same classes are counted in each image."""
    from mmagic.structures import DataSample  # after the fixtures, which prepare its import

    generator, samples = torch.Generator().manual_seed(0), []
    for number in range(count):
        images = torch.randint(256, (2, 3, size, size), generator=generator).byte()
        label = torch.zeros(1, size, size, dtype=torch.long)
        label[:, size // 2 :] = 3
        if not equal:
            label[:, : size // 4 * (number % 3)] = 255
            label[:, :, : size // 2] += number % 2
        sample = DataSample(gt_img=images[1], gt_sem_seg=PixelData(data=label))
        samples.append({'inputs': images[0], 'data_samples': sample})
    return samples


def both(build, folder, updates, count=4, equal=True, **options):
    """Returns the start and the results of one batch of four, and of four batches, per update."""
    built = build(**options).moved()
    samples = samples_of(count, equal=equal)
    config = {**built.config.optim_wrapper, 'generator': SGD, 'critic': SGD}

    def wrapper(model):
        return build_optim_wrapper(model, copy.deepcopy(config))

    start = {name: value.detach().clone() for name, value in built.model.named_parameters() if value.requires_grad}
    whole = trained(built.model, wrapper, samples, folder / 'whole', updates, 4)
    parts = trained(built.model, wrapper, samples, folder / 'parts', updates, 1, 4)
    return start, whole, parts


@pytest.mark.parametrize('updates', [1, pytest.param(20, marks=pytest.mark.slow)])
def test_generator_and_critic_get_the_weights_of_the_large_batch(build, same_noise, tmp_path, updates):
    start, whole, parts = both(build, tmp_path, updates, 8, **PLAIN)
    assert any('.vsd.' in name for name in whole) and any('.scr.' in name for name in whole)
    print('largest difference', distance(whole, parts), 'largest step', distance(whole, start))
    assert distance(whole, parts) < 1e-5 < 1e-4 < distance(whole, start)


@pytest.mark.slow
def test_the_constraint_is_averaged_over_batches_as_over_processes(build, same_noise, tmp_path):
    """It is a mean over classes, so it equals that of the large batch if all images have as many classes."""
    only = {'losses.pixel': None, 'losses.score': None, 'losses.constraint.loss_weight': 10.0}
    _, whole, parts = both(build, tmp_path / 'equal', 1, **only)
    same = distance(whole, parts)
    _, whole, parts = both(build, tmp_path / 'other', 1, equal=False, **only)
    print('largest difference with equal classes', same, 'and with others', distance(whole, parts))
    assert same < 1e-5 < distance(whole, parts)
