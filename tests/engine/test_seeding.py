"""Draws as a function of seed and number, independent of processes, workers and restarts."""

import pickle
import random
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, TRANSFORMS
from torch.utils.data import DataLoader

from rass_mm.engine import seeding
from rass_mm.engine.seeding import Draw, IterationSeedHook, SeededSampler, SeedSample, mixed_seed

SIZE = 7


class Numbers(BaseDataset):
    """Data set of items 0 to SIZE - 1, each returned with random numbers drawn while it was loaded."""

    def load_data_list(self):
        return [{'number': number} for number in range(SIZE)]


class Augment:
    """Draws from every generator that augmentations use."""

    def __call__(self, results):
        drawn = [np.random.rand(), np.random.normal(), random.random(), torch.rand(1).item()]
        return {'number': results['number'], 'drawn': np.array(drawn)}


@pytest.fixture
def dataset():
    return Numbers(pipeline=[SeedSample(), Augment()])


@pytest.fixture
def draws(monkeypatch):
    """Returns the first `count` draws of one process of `world`, as (index, seed) pairs."""

    def first(count, rank=0, world=1, skip=0, size=SIZE, **keywords):
        monkeypatch.setattr(seeding, 'get_dist_info', lambda: (rank, world))
        sampler = SeededSampler(range(size), **{'seed': 5, **keywords})
        sampler.skip(skip)
        return [(int(draw), draw.seed) for draw in islice(sampler, count)]

    return first


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('world', [2, 3])
def test_several_processes_together_draw_the_same_as_one(draws, world, shuffle):
    alone = draws(30, shuffle=shuffle)
    parts = [draws(30 // world, rank, world, shuffle=shuffle) for rank in range(world)]
    assert [draw for turn in zip(*parts, strict=True) for draw in turn] == alone


@pytest.mark.parametrize('size', [1, 2, 7])
def test_every_index_comes_once_per_epoch(draws, size):
    indices = [index for index, _ in draws(5 * size, size=size)]
    for epoch in range(5):
        assert sorted(indices[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_epochs_and_seeds_are_shuffled_differently(draws):
    indices = [index for index, _ in draws(40, size=20)]
    assert indices[:20] != indices[20:] and indices[:20] != list(range(20))
    assert indices != [index for index, _ in draws(40, size=20, seed=6)]
    assert draws(40, size=20) == draws(40, size=20)


def test_without_shuffling_the_order_is_kept_and_the_seeds_still_differ(draws):
    found = draws(2 * SIZE, shuffle=False)
    assert [index for index, _ in found] == [*range(SIZE)] * 2
    assert len({seed for _, seed in found}) == 2 * SIZE


@pytest.mark.parametrize('skip', [0, 1, 6, 7, 8, 23])
@pytest.mark.parametrize(('rank', 'world'), [(0, 1), (1, 2)])
def test_skipping_equals_dropping(draws, skip, rank, world):
    assert draws(20, rank, world, skip=skip) == draws(20 + skip, rank, world)[skip:]


def test_skipping_counts_from_the_beginning_for_every_iterator():
    sampler = SeededSampler(range(SIZE), seed=5)
    [*islice(sampler, 4)]
    sampler.skip(2)
    assert [*islice(sampler, 3)] == [*islice(SeededSampler(range(SIZE), seed=5), 5)][2:]


def test_a_seed_is_drawn_where_none_is_given():
    torch.manual_seed(0)
    assert isinstance(SeededSampler(range(SIZE)).seed, int)
    assert len(SeededSampler(range(SIZE), seed=0)) == SIZE
    assert isinstance(DATA_SAMPLERS.build({'type': 'SeededSampler', 'dataset': range(3)}), SeededSampler)


def test_a_draw_is_its_index_and_keeps_its_seed_when_pickled():
    draw = pickle.loads(pickle.dumps([Draw(3, 99)]))[0]
    assert draw == 3 and [10, 11, 12, 13][draw] == 13 and isinstance(draw, Draw) and draw.seed == 99


def test_augmentations_are_a_function_of_the_draw_alone(dataset):
    first = dataset[Draw(2, 11)]['drawn']
    np.random.seed(3), random.seed(4), torch.manual_seed(5)
    assert np.array_equal(dataset[Draw(2, 11)]['drawn'], first)
    other = dataset[Draw(2, 12)]['drawn']
    assert (other != first).all()
    assert np.array_equal(dataset[Draw(4, 11)]['drawn'], first)


def test_a_plain_index_leaves_the_generators_alone():
    transform = TRANSFORMS.build({'type': 'mmseg.SeedSample'})
    np.random.seed(0), random.seed(0), torch.manual_seed(0)
    expected = np.random.rand(), random.random(), torch.rand(1).item()
    np.random.seed(0), random.seed(0), torch.manual_seed(0)
    results = {'sample_idx': 3, 'kept': 1}
    assert transform(results) == {'sample_idx': 3, 'kept': 1} and transform({}) == {}
    assert (np.random.rand(), random.random(), torch.rand(1).item()) == expected


def loaded(dataset, workers, skip=0, count=9, **keywords):
    sampler = SeededSampler(dataset, seed=5)
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers, **keywords)
    if skip:
        next(iter(loader))  # as in the constructor of mmengine's loop, before it resumes
        sampler.skip(skip)
    batches = [*islice(iter(loader), count)]
    return torch.cat([batch['number'] for batch in batches]), torch.cat([batch['drawn'] for batch in batches])


def test_workers_do_not_change_what_is_loaded(dataset):
    numbers, drawn = loaded(dataset, 0)
    assert sorted(numbers[:SIZE].tolist()) == list(range(SIZE)) and len(drawn.unique()) == drawn.numel()
    torch.manual_seed(77)
    for found, expected in zip(loaded(dataset, 2), (numbers, drawn), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    'options', [{'workers': 0}, {'workers': 2, 'persistent_workers': True}], ids=['alone', 'workers']
)
def test_resuming_loads_what_would_have_come_next(dataset, options):
    whole, rest = loaded(dataset, 0, count=9), loaded(dataset, skip=8, count=5, **options)
    assert all(torch.equal(part, all_[8:]) for part, all_ in zip(rest, whole, strict=True))


class FakeRunner:
    """Runner with the attributes that the hook reads."""

    def __init__(self, seed, iteration):
        self.seed, self.iter = seed, iteration


def after_hook(seed=1, iteration=0, rank=0, monkeypatch=None):
    monkeypatch.setattr(seeding, 'get_dist_info', lambda: (rank, 4))
    IterationSeedHook().before_train_iter(FakeRunner(seed, iteration), 0)
    return np.random.rand(), random.random(), torch.rand(1).item()


def test_the_models_draws_depend_on_seed_iteration_and_rank_alone(monkeypatch):
    first = after_hook(monkeypatch=monkeypatch)
    assert after_hook(monkeypatch=monkeypatch) == first
    for change in ({'seed': 2}, {'iteration': 1}, {'rank': 1}):
        assert all(a != b for a, b in zip(after_hook(**change, monkeypatch=monkeypatch), first, strict=True)), change
    assert isinstance(IterationSeedHook(), Hook)
    assert after_hook(seed=None, monkeypatch=monkeypatch) == after_hook(seed=0, monkeypatch=monkeypatch)


def test_mixed_seeds_are_distinct_32_bit_numbers():
    seeds = {mixed_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900 and all(0 <= seed < 2**32 for seed in seeds)
    assert mixed_seed(1, 2) == mixed_seed(1, 2) != mixed_seed(2, 1)


def test_draws_of_a_sample_an_epoch_and_an_iteration_share_no_seed(monkeypatch):
    seen = []
    monkeypatch.setattr(seeding.torch, 'manual_seed', seen.append)
    for rank in range(2):
        for iteration in range(20):
            monkeypatch.setattr(seeding, 'get_dist_info', lambda rank=rank: (rank, 2))
            IterationSeedHook().before_train_iter(FakeRunner(5, iteration), 0)
    monkeypatch.setattr(seeding, 'get_dist_info', lambda: (0, 1))
    samples = {draw.seed for draw in islice(SeededSampler(range(SIZE), seed=5, shuffle=False), 20)}
    assert len(set(seen)) == 40 and not samples & set(seen)


@pytest.mark.parametrize('world', [1, 2, 3])
@pytest.mark.parametrize('epoch', [0, 1, 4])
def test_an_epoch_ends_and_has_the_draws_of_the_endless_order(monkeypatch, world, epoch):
    alone = [*islice(SeededSampler(range(SIZE), seed=5), 60)]
    length = -(-SIZE // world)
    parts = []
    for rank in range(world):
        monkeypatch.setattr(seeding, 'get_dist_info', lambda rank=rank: (rank, world))
        sampler = SeededSampler(range(SIZE), seed=5)
        sampler.start_epoch(epoch)
        parts.append([*sampler])
        assert len(sampler) == len(parts[-1]) == length
    drawn = [draw for turn in zip(*parts, strict=True) for draw in turn]
    first = epoch * length * world
    assert [(draw, draw.seed) for draw in drawn] == [(draw, draw.seed) for draw in alone[first : first + len(drawn)]]
