"""Statistics by hand, tables from records, and the README that must say what the records say."""

import math

import pytest
from commands import ROOT

from experiments import report
from experiments.plots import FAMILIES, colors_of, panels_of
from experiments.results import Comparison, Row, compare, mean_text, miou, spread
from experiments.systems import SETTINGS, SYSTEMS, systems_of
from rass_mm.errors import ConfigError, DataError

KNOWN = {system.name: system for system in SYSTEMS}


def row(name, scores):
    tests = {seed: {split: {'mIoU': score} for split in ('degraded', 'clean')} for seed, score in scores.items()}
    return Row(KNOWN[name], {seed: {'seed': seed, 'tests': test} for seed, test in tests.items()})


def test_comparison_pairs_the_seeds_both_have():
    found = compare(row('rass', {0: 30.0, 1: 32.0, 2: 31.0}), row('base', {1: 31.0, 2: 31.5, 5: 0.0}), miou('degraded'))
    assert found.seeds == (1, 2) and found.differences == (1.0, -0.5)
    assert found.verdict == 'unclear (2 of 3 seeds)'


@pytest.mark.parametrize(
    ('differences', 'verdict'),
    [
        ((0.1, 2.0, 0.3), 'yes'),
        ((-0.1, -2.0, -0.3), 'no'),
        ((0.1, -0.1, 3.0), 'unclear'),
        ((5.0,), 'unclear (1 of 3 seeds)'),
        ((5.0, 5.0), 'unclear (2 of 3 seeds)'),
    ],
)
def test_verdict_needs_all_seeds(differences, verdict):
    assert Comparison(tuple(range(len(differences))), differences).verdict == verdict


def test_spread_is_the_sample_standard_deviation():
    values = [1.0, 2.0, 4.0]
    by_hand = math.sqrt(sum((v - 7 / 3) ** 2 for v in values) / 2)
    assert spread(values) == pytest.approx(by_hand) and spread([3.0]) == 0
    assert mean_text(values) == f'2.33 ± {by_hand:.2f}' and mean_text([3.0]) == '3.00'


def test_section_replaces_what_is_between_the_markers_only():
    text = f'above\n{report.BEGIN}\nold\n{report.END}\nbelow\n'
    once = report.with_section(text, 'new')
    assert once == f'above\n{report.BEGIN}\n\nnew\n\n{report.END}\nbelow\n' and report.with_section(once, 'new') == once
    for broken in ('nothing', report.BEGIN, f'{report.END}{report.BEGIN}', text + text):
        with pytest.raises(DataError, match='needs the lines'):
            report.with_section(broken, 'new')


def test_panels_hold_one_length_and_families_keep_their_colour():
    names = ('dt', 'ft', 'base', 'rass', 'random', 'ft_long', 'base_long', 'rass_t200', 'base_longer', 'rass_longer')
    steps = {'ft_long': 3600, 'base_long': 3600, 'base_longer': 10800, 'rass_longer': 10800}
    rows = [Row(KNOWN[name], {0: {'steps': steps.get(name, 1200)}}) for name in names]
    panels = panels_of(rows)
    assert [[row.system.name for row in panel] for panel in panels] == [
        ['dt', 'ft', 'base', 'rass', 'random'],
        ['rass_t200'],
        ['ft_long', 'base_long'],
        ['base_longer', 'rass_longer'],
    ]
    for panel in panels:
        colors = colors_of(panel)
        assert len(set(colors)) == len(panel)
        for color, row in zip(colors, panel, strict=True):
            family = row.system.name.split('_')[0]
            assert (color == FAMILIES.index(family)) if family in FAMILIES else color >= len(FAMILIES)


def test_text_takes_its_numbers_from_the_records():
    rows = {'scenes': [row('rass', {0: 30.0, 1: 33.0}), row('base', {0: 31.0, 1: 30.0})]}
    text = 'mean {scenes: rass}, by {scenes: rass - base}, {scenes: base - rass clean}; {left: alone'
    assert report.with_numbers(text, rows) == 'mean 31.5, by 1.0, -1.0; {left: alone'
    for missing in ('{scenes: rass - ft}', '{camvid: rass}'):
        with pytest.raises(DataError, match='has no record'):
            report.with_numbers(missing, rows)


def test_systems_bring_what_they_need_in_the_order_in_which_they_run():
    assert [system.name for system in systems_of('scenes', ['r2s'])] == ['dt', 'scr', 'r2s']
    with pytest.raises(ConfigError, match="No system 'x' on camvid"):
        systems_of('camvid', ['x'])
    for setting in SETTINGS:
        seen = set()
        for system in systems_of(setting):
            assert set(system.needs) <= seen and (ROOT / system.config(setting)).is_file()
            seen.add(system.name)


def test_readme_and_tables_say_what_the_records_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = {name: rows for name in SETTINGS if (rows := report.read_rows(name))}
    assert settings, 'there are committed records'
    readme = report.README.read_text()
    assert report.with_section(readme, report.readme_part(settings)) == readme, 'run python -m experiments report'
    page = (report.DOCS / 'README.md').read_text()
    for name, rows in settings.items():
        assert report.setting_part(name, rows) in page, 'run python -m experiments report'
