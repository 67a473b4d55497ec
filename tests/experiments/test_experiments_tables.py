"""Rows of the written tables, computed again from the files of records and counts with NumPy alone."""

import json
import math
import re

import numpy as np
import pytest
from commands import ROOT
from scipy import stats

RESULTS = ROOT / 'experiments' / 'results'
FOLDS = [f'camvid_fold{number}' for number in range(3)]
SECTIONS = {
    'scenes, 128x128': ['scenes'],
    'CamVid at half size, 240x180, official validation clip': ['camvid'],
    'scenes, 128x128, 500 validation images': ['scenes2'],
    'CamVid at half size, 240x180, folds by time': FOLDS,
}


def section(title):
    """The text below a heading of the page."""
    page = (ROOT / 'docs' / 'evidence' / 'README.md').read_text()
    return re.split(r'\n## ', page.split(f'\n## {title}\n')[1])[0]


def question_row(title, question):
    """Cells of a row: differences, mean, interval, signs, corrected p and verdict."""
    (line,) = [line for line in section(title).splitlines() if re.match(rf'\| {re.escape(question)} +\|', line)]
    return [cell.strip() for cell in line.strip('|').split('|')][1:]


def numbers(text):
    return [float(number) for number in re.findall(r'[+-]?\d+\.\d+', text)]


def records(setting):
    file = RESULTS / f'{setting}.jsonl'
    lines = file.read_text().splitlines() if file.is_file() else []
    return {(r['system'], r['seed']): r for r in map(json.loads, lines)}


@pytest.mark.parametrize(
    ('title', 'question', 'better', 'worse'),
    [
        ('scenes, 128x128', 'RASS > base without SCR', 'rass', 'base'),
        ('CamVid at half size, 240x180, official validation clip', 'FT > DT', 'ft', 'dt'),
    ],
)
def test_two_rows_without_counts(title, question, better, worse):
    """Student's interval over three seeds has a closed form, and p-values of the family give the corrected one."""
    known = records(*SECTIONS[title])
    found = [
        known[better, seed]['tests']['degraded']['mIoU'] - known[worse, seed]['tests']['degraded']['mIoU']
        for seed in range(3)
    ]
    mean = sum(found) / 3
    error = math.sqrt(sum((d - mean) ** 2 for d in found) / 2 / 3)
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) * error
    cells = question_row(title, question)
    assert numbers(cells[0]) == pytest.approx(found, abs=0.0051)
    assert numbers(cells[1])[0] == pytest.approx(mean, abs=0.0051)
    assert numbers(cells[2]) == pytest.approx([mean - half, mean + half], abs=0.0051)
    values = []
    for other in list(SECTIONS)[:2]:
        for line in section(other).splitlines():
            differences = numbers(line.split('|')[2]) if line.count('|') == 8 else []
            if len(differences) == 3:
                t = np.mean(differences) / (np.std(differences, ddof=1) / math.sqrt(3))
                values.append(1 - abs(t) / math.sqrt(2 + t * t))
    t = abs(mean) / error
    own = 1 - t / math.sqrt(2 + t * t)
    larger = sorted(value for value in values if value >= own * 0.999)
    smaller = len(values) - len(larger)
    q = min(value * len(values) / (smaller + rank) for rank, value in enumerate(larger, 1))
    assert len(values) > 50 and float(cells[4]) == pytest.approx(q, abs=0.002)
    assert cells[5] == ('unclear' if q > 0.05 else 'yes' if mean > 0 else 'no, reversed')


def counts_of(settings, system, seed):
    """Concatenated counts of all folds, (3, images, classes)."""
    parts = [np.load(RESULTS / 'counts' / setting / f'{system}-{seed}-degraded.npz') for setting in settings]
    return np.concatenate([[part[key] for key in ('intersection', 'prediction', 'truth')] for part in parts], 1), [
        name for part in parts for name in part['names']
    ]


def miou(counts):
    right, predicted, true = counts.sum(1).astype(float)
    union = predicted + true - right
    return 100 * np.mean(right[union > 0] / union[union > 0])


@pytest.mark.parametrize('title', list(SECTIONS)[2:])
def test_two_rows_from_counts(title):
    """Differences exactly; the interval with another bootstrap, which draws images or blocks one by one."""
    settings, checked = SECTIONS[title], 0
    known = [records(setting) for setting in settings]
    asked = [('RASS > base without SCR', 'rass', 'base'), ('RASS > FT', 'rass', 'ft'), ('FT > DT', 'ft', 'dt')]
    for question, better, worse in asked:
        whole = all((name, seed) in there for name in (better, worse) for seed in range(3) for there in known)
        if not whole or checked == 2:
            continue
        checked += 1
        pairs = [[counts_of(settings, name, seed) for name in (better, worse)] for seed in range(3)]
        found = [miou(a) - miou(b) for (a, _), (b, _) in pairs]
        cells = question_row(title, question)
        assert numbers(cells[0]) == pytest.approx(found, abs=0.0051)
        names = pairs[0][0][1]
        blocks = {}
        for rank, name in enumerate(names):
            drive = name.rpartition('_')[0] if settings == FOLDS else name
            blocks.setdefault(drive, []).append((name, rank))
        blocks = [[r for _, r in sorted(b)[i : i + 10]] for b in blocks.values() for i in range(0, len(b), 10)]
        rng, drawn = np.random.default_rng(9), []
        for _ in range(400):
            chosen = np.concatenate([blocks[i] for i in rng.integers(0, len(blocks), len(blocks))])
            drawn.append(np.mean([miou(a[:, chosen]) - miou(b[:, chosen]) for (a, _), (b, _) in pairs]))
        parts = np.var(found, ddof=1) / 3, np.var(drawn, ddof=1) * len(blocks) / (len(blocks) - 1)
        freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / (len(blocks) - 1))
        half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
        low, high = numbers(cells[2])
        assert (low + high) / 2 == pytest.approx(np.mean(found), abs=0.0101)
        assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    if not checked:
        pytest.skip(f'{settings[0]}: always skipped until a question has three committed seeds')
