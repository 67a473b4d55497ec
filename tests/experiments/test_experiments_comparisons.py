"""Comparisons of rows from the files of their counts."""

import hashlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
from studies import by_hand, differences, study

from experiments import counts, questions, results, store
from experiments.counts import Counts, pooled_miou
from experiments.results import Row, compare_miou
from experiments.statistics import (
    Pair,
    image_spread,
)
from experiments.systems import SYSTEMS
from rass_mm.errors import DataError

KNOWN = {system.name: system for system in SYSTEMS}


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A function that writes the counts of a test and returns its record."""
    monkeypatch.setattr(store, 'RESULTS', tmp_path)

    def record(system, seed, found, setting='scenes2'):
        plain = {'setting': setting, 'system': system, 'seed': seed}
        return counts.write_counts(
            {**plain, 'tests': {'degraded': {'mIoU': round(pooled_miou(found), 2)}}}, {'degraded': found}
        )

    return record


def rows_of(pairs, counted, names=('rass', 'ft'), setting='scenes2'):
    return [
        Row(KNOWN[name], {seed: counted(name, seed, pair[number], setting) for seed, pair in enumerate(pairs)})
        for number, name in enumerate(names)
    ]


def test_comparison_of_rows_is_computed_from_their_files(counted):
    pairs = study(np.random.default_rng(3), 25)
    found = compare_miou(*rows_of(pairs, counted), 'degraded')
    assert found.differences == pytest.approx(differences(pairs)) and found.images == image_spread(pairs, range(25))


def test_counts_of_a_first_data_set_are_not_used(counted):
    """A row that is run again there has counts, its neighbours do not; one table has one kind of interval."""
    pairs = study(np.random.default_rng(3), 25)
    found = compare_miou(*rows_of(pairs, counted, setting='scenes'), 'degraded')
    assert found.images is None and found.differences == pytest.approx(differences(pairs), abs=0.011)


def test_frames_of_camvid_are_drawn_in_blocks(counted):
    pairs = study(np.random.default_rng(3), 25)
    names = np.array([f'0016E5_{n:05}' for n in range(25)])
    pairs = [Pair(*(part._replace(names=names) for part in pair)) for pair in pairs]
    found = compare_miou(*rows_of(pairs, counted, setting='camvid_fold0'), 'degraded')
    assert found.images.blocks == 3


def test_rows_of_different_images_are_not_compared(counted):
    (first, second), _, _ = study(np.random.default_rng(3), 25)
    other = second._replace(names=second.names[::-1])
    with pytest.raises(DataError, match='rass and ft were tested on different images'):
        compare_miou(*rows_of([Pair(first, other)], counted), 'degraded')


def test_counts_are_those_that_the_record_names(counted, tmp_path):
    (first, _), _, _ = study(np.random.default_rng(3), 5)
    record = counted('rass', 7, first)
    file = tmp_path / 'counts' / 'scenes2' / 'rass-7-degraded.npz'
    data = file.read_bytes()
    assert record['tests']['degraded']['counts'] == hashlib.sha256(data).hexdigest()
    assert np.array_equal(np.load(io.BytesIO(data))['truth'], first.truth)
    assert data == counts.encode_counts(counts.read_counts(record, 'degraded'))
    counts._read_file.cache_clear()
    file.write_bytes(data[:-1] + b'x')
    with pytest.raises(DataError, match='does not have the hash .* of its record'):
        counts.read_counts(record, 'degraded')
    file.unlink()
    with pytest.raises(DataError, match=r'rass-7-degraded.npz is missing'):
        counts.read_counts(record, 'degraded')


def test_folds_are_pooled_so_that_every_image_counts_once(counted, monkeypatch):
    folds = [study(np.random.default_rng(number), 20 + number)[0].better for number in range(3)]
    folds = [fold._replace(names=np.char.add(f'{number}_', fold.names)) for number, fold in enumerate(folds)]
    records = [counted('rass', 0, fold, f'camvid_fold{n}') for n, fold in enumerate(folds)]
    for number, record in enumerate(records):
        record |= {'config': 'a', 'curve': [[300, 10.0 + number]], 'seconds': 5.0}
    dataset = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=SimpleNamespace(type='x')))
    monkeypatch.setattr(counts, 'load_config', lambda _path: dataset)
    monkeypatch.setattr(counts, 'class_names', lambda _type: ['a', 'b', 'c', 'd'])
    found = counts.pooled(records)
    whole = Counts(*(np.concatenate(parts) for parts in zip(*folds, strict=True)))
    assert found['tests']['degraded']['mIoU'] == pytest.approx(by_hand(whole))
    assert len(found['tests']['degraded']['images']) == 20 + 21 + 22
    assert counts.read_counts(found, 'degraded').truth.tolist() == whole.truth.tolist()
    assert found['curve'] == [[300, 11.0]] and found['seconds'] == 5.0


def test_seed_without_all_folds_is_left_out(monkeypatch):
    there = {
        ('camvid_fold0', 0), ('camvid_fold1', 0), ('camvid_fold2', 0), ('camvid_fold0', 1), ('camvid_fold1', 1)
    }  # fmt: skip
    monkeypatch.setattr(
        results,
        'read_records',
        lambda name: [{'setting': name, 'system': 'ft', 'seed': s} for n, s in sorted(there) if n == name],
    )
    monkeypatch.setattr(results, 'pooled', lambda folds: {'folds': [fold['setting'] for fold in folds]})
    (row,) = results.read_rows('camvid_folds')
    assert row.by_seed == {0: {'folds': ['camvid_fold0', 'camvid_fold1', 'camvid_fold2']}}


def test_families_are_corrected_apart_and_only_whole_answers_are_in_them(counted):
    """Independently: Benjamini-Hochberg by hand over the p-values of the second data sets."""
    pairs = study(np.random.default_rng(5), 30)
    rass, ft = rows_of(pairs, counted)
    other = study(np.random.default_rng(6), 30)
    dt, base = rows_of([Pair(b, a) for a, b in other], counted, ('dt', 'base'))
    partial = Row(KNOWN['r2s'], {0: counted('r2s', 0, pairs[0].better)})
    old = [
        Row(KNOWN[name], {s: {'setting': 'scenes', 'tests': {'degraded': {'mIoU': x + s * s}}} for s in range(3)})
        for name, x in (('rass', 30.0), ('base', 20.0))
    ]  # fmt: skip
    answered = questions.all_answers({'scenes': old, 'scenes2': [rass, ft, dt, base, partial]})
    second = answered['scenes2']
    whole = [answer for answer in second if answer.comparison.whole]
    assert {(a.question.better, a.question.worse) for a in whole} == {
        ('rass', 'base'), ('base', 'ft'), ('rass', 'ft'), ('ft', 'dt')
    }  # fmt: skip
    values = sorted(a.comparison.p_value for a in whole)
    for answer in whole:
        rank = values.index(answer.comparison.p_value)
        assert answer.corrected == pytest.approx(min(values[j] * 4 / (j + 1) for j in range(rank, 4)))
    assert all(a.corrected is None for a in second if a not in whole)
    assert {a.verdict for a in second if a not in whole} == {'unclear: 1 of 3 seeds run'}
    (first,) = answered['scenes']
    assert first.comparison.images is None and first.corrected == first.comparison.p_value
