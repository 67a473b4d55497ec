"""Statistics by hand, tables from records, and the README that must say what the records say."""

import math
import re

import pytest
from commands import ROOT

from experiments import questions, report, tables, texts
from experiments.plots import FAMILIES, colors_of, panels_of
from experiments.results import GROUPS, Comparison, Row, compare, mean_text, miou, spread
from experiments.systems import FIRST, SETTINGS, SYSTEMS, systems_of
from rass_mm.errors import ConfigError, DataError

KNOWN = {system.name: system for system in SYSTEMS}


def row(name, scores):
    tests = {seed: {split: {'mIoU': score} for split in ('degraded', 'clean')} for seed, score in scores.items()}
    made = {seed: {'setting': 'scenes', 'seed': seed, 'steps': 1200, 'tests': test} for seed, test in tests.items()}
    return Row(KNOWN[name], made)


def test_comparison_pairs_the_seeds_both_have():
    found = compare(row('rass', {0: 30.0, 1: 32.0, 2: 31.0}), row('base', {1: 31.0, 2: 31.5, 5: 0.0}), miou('degraded'))
    assert found.seeds == (1, 2) and found.differences == (1.0, -0.5)
    assert found.signs == '2 of 3 seeds run'


@pytest.mark.parametrize(
    ('differences', 'signs'),
    [
        ((0.1, 2.0, 0.3), 'agree'),
        ((-0.1, -2.0, -0.3), 'agree, reversed'),
        ((0.1, -0.1, 3.0), 'disagree'),
        ((5.0,), '1 of 3 seeds run'),
        ((5.0, 5.0), '2 of 3 seeds run'),
    ],
)
def test_signs_need_all_seeds(differences, signs):
    assert Comparison(tuple(range(len(differences))), differences).signs == signs


@pytest.mark.parametrize('differences', [(3.58, 1.67, 0.91), (-5.15, -4.98, -4.15), (0.1, -0.1, 3.0)])
def test_test_and_interval_are_students_over_three_seeds(differences):
    """For two degrees of freedom the t distribution has a closed form."""
    mean = sum(differences) / 3
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / 2 / 3)
    found = Comparison((0, 1, 2), differences)
    t = abs(mean) / error
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))
    quantile = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    assert found.interval == pytest.approx((mean - quantile * error, mean + quantile * error))
    assert Comparison((0,), (1.0,)).interval is None


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
        with pytest.raises(DataError, match='must contain the lines'):
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
    half = math.tan(0.475 * math.pi) * 2  # one degree of freedom; the standard error of (-1, 3) is 2
    low, high = 1 - half, 1 + half
    by_hand = f'mean 31.5, by 1.0 [{low:.1f}, {high:.1f}], -1.0 [{-high:.1f}, {-low:.1f}]; {{left: alone'
    assert texts.with_numbers(text, rows, {}) == by_hand
    one = {'scenes': [row('rass', {0: 30.0}), row('base', {0: 31.0})]}
    assert texts.with_numbers('{scenes: rass - base}', one, {}) == '-1.0'
    for missing in ('{scenes: rass - ft}', '{camvid: rass}', '{fact: nothing}'):
        with pytest.raises(DataError, match='has no record'):
            texts.with_numbers(missing, rows, {})


def test_text_gives_the_verdict_on_data_with_counts():
    asked = next(q for q in questions.SECOND_QUESTIONS if (q.better, q.worse) == ('rass', 'ft'))
    answered = {'scenes2': [questions.Answer(asked, Comparison((0, 1, 2), (1.0, 2.0, 3.0)), 0.2)]}
    found = texts.with_numbers('{scenes2: rass - ft}, {scenes2: base - ft}, {scenes2: ft}', {}, answered)
    assert found == '2.0 [-0.5, 4.5] (unclear), not run, not run'
    for wrong, said in (('{scenes2: ft - rass}', 'not one of its questions'), ('{scenes2: rss}', 'has no record')):
        with pytest.raises(DataError, match=said):
            texts.with_numbers(wrong, {}, answered)


def made_up(p_values):
    """Rows of which each question about one pair has a t-test with the given p-value, and the pairs."""
    pairs = [('rass', 'base'), ('ft', 'dt'), ('r2s', 'scr'), ('base_long', 'ft_long'), ('rass_full', 'random')][
        : len(p_values)
    ]
    rows = []
    for (better, worse), p in zip(pairs, p_values, strict=True):
        t = (1 - p) * math.sqrt(2 / (1 - (1 - p) ** 2))
        mean = t / math.sqrt(3)  # with a standard deviation of 1
        rows += [row(better, {0: mean - 1, 1: mean, 2: mean + 1}), row(worse, dict.fromkeys(range(3), 0.0))]
    return rows, pairs


def test_corrections_by_hand(monkeypatch):
    values = (0.011, 0.03, 0.0199, 0.5, 0.014)
    rows, pairs = made_up(values)
    asked = tuple(questions.Question(f'{better} over {worse}', better, worse) for better, worse in pairs)
    monkeypatch.setattr(questions, 'QUESTIONS', asked)
    settings = {'scenes': rows}
    answered = questions.all_answers(settings)
    assert sorted(a.comparison.p_value for _, a in texts.whole_answers(answered)) == pytest.approx(sorted(values))
    # Holm: 0.011 > 0.05 / 5, so nothing is left. Benjamini-Hochberg: 0.03 <= 0.05 * 4 / 5, so four are.
    text = '{fact: asked} {fact: agree} {fact: chance} {fact: holm} {fact: benjamini_hochberg} [{fact: holm_rows}]'
    agree = sum(value < 1 - 1 / math.sqrt(3) for value in values)  # the mean exceeds the standard deviation
    assert texts.with_numbers(text, settings, answered) == f'5 {agree} 1 0 4 []'
    rows, _ = made_up((0.0099, 0.0124, 0.0166, 0.026, 0.04))
    answered = questions.all_answers({'scenes': rows})
    found = texts.with_numbers('{fact: holm} {fact: holm_rass} {fact: holm_rows}', {'scenes': rows}, answered)
    assert found == '3 1 rass over base (scenes); ft over dt (scenes); r2s over scr (scenes)'


def test_equal_cost_is_between_the_two_lengths():
    rows = []
    for name, steps, score in (('base', 1200, 36.0), ('base_long', 3600, 45.0)):
        made = row(name, {0: score - 1, 1: score + 1})
        rows.append(Row(made.system, {seed: {**record, 'steps': steps} for seed, record in made.by_seed.items()}))
    by_hand = 36 + 9 * math.log(1900 / 1200, 3)
    assert texts.with_numbers('{fact: equal_scenes}', {'scenes': rows}, {}) == f'{by_hand:.1f}'


MARK = re.compile(r'\((agree|disagree|one seed)[^)]*\)')
DIFFERENCE = re.compile(r'\{(\w+): (\w+) - (\w+)(?: (clean))?\}')


def test_findings_say_agree_and_disagree_where_the_seeds_do(monkeypatch):
    """Every difference before such a word, back to the word before it or the start of the paragraph.

    On the second data sets, such a word needs records; their verdicts are inserted from the records instead.
    """
    monkeypatch.chdir(ROOT)
    known = {name: {row.system.name: row for row in report.read_rows(name)} for name in GROUPS}
    checked = 0
    for paragraph in re.split(r'\n(?=\*|\n)', (ROOT / 'experiments' / 'explanation.md').read_text()):
        start = 0
        for mark in MARK.finditer(paragraph):
            for setting, better, worse, split in DIFFERENCE.findall(paragraph[start : mark.start()]):
                found = compare(known[setting][better], known[setting][worse], miou(split or 'degraded')).signs
                said = {'one seed': '1 of 3 seeds run'}.get(mark[1], mark[1])
                assert found.removesuffix(', reversed') == said, paragraph
                checked += 1
            start = mark.end()
    assert checked > 30


def test_systems_bring_what_they_need_in_the_order_in_which_they_run():
    assert [system.name for system in systems_of('scenes', ['r2s'])] == ['dt', 'scr', 'r2s']
    with pytest.raises(ConfigError, match="No system 'x' on camvid"):
        systems_of('camvid', ['x'])
    for setting in SETTINGS:
        seen = set()
        for system in systems_of(setting):
            assert set(system.needs) <= seen and (ROOT / system.config_file(setting)).is_file()
            seen.add(system.name)


def test_planned_rows_without_a_record_are_not_run():
    rows = [row('rass', {0: 30.0}), row('ft', {1: 29.0})]
    scores = tables.score_table('scenes', rows).splitlines()[2:]
    assert [line.split(' | ')[0].strip('| ').removesuffix(' (cause)') for line in scores] == [
        system.title + ' (upper bound)' * (system.group == 'upper bound')
        for system in systems_of('scenes')
        if not system.restores
    ]
    assert sum('not run' not in line for line in scores) == 2
    answered = questions.all_answers({'scenes': rows}).get('scenes', ())
    lines = tables.question_table('scenes', answered).splitlines()[2:]
    asked = {line.split(' | ')[0].strip('| '): line for line in lines}
    assert list(asked) == [question.text for question in questions.questions_of('scenes')]
    assert asked['RASS > FT'].endswith('not run |'), 'no seed in common'
    assert not any('group norm' in text for text in asked), 'planned on CamVid only'
    restorers = tables.restorer_table('scenes', rows).splitlines()[2:]
    planned = [system.title for system in systems_of('scenes') if system.restores]
    assert [line.split(' | ')[0].strip('| ') for line in restorers] == planned
    assert all('not run' in line for line in restorers)


def test_page_says_not_run_for_every_row_without_a_record(monkeypatch):
    monkeypatch.chdir(ROOT)
    for group in GROUPS:
        rows = report.read_rows(group)
        ran = {row.system.name for row in rows}
        tabled = tables.score_table(group, rows) + '\n' + tables.restorer_table(group, rows)
        for system in systems_of(GROUPS[group][0]):
            (line,) = [
                line for line in tabled.splitlines() if re.match(rf'\| {re.escape(system.title)}( \(| *\|)', line)
            ]
            assert ('not run' in line) == (system.name not in ran), line


def test_readme_has_six_lines():
    assert len((ROOT / 'experiments' / 'summary.md').read_text().strip().splitlines()) == 6


def test_readme_and_tables_say_what_the_records_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    groups = {name: report.read_rows(name) for name in GROUPS}
    assert all(groups[name] for name in FIRST), 'there are committed records'
    answered = questions.all_answers(groups)
    readme = report.README.read_text()
    section = report.readme_part(groups, answered)
    assert report.with_section(readme, section) == readme, 'run python -m experiments report'
    page = (report.DOCS / 'README.md').read_text()
    assert report.page(groups, answered) == page, 'run python -m experiments report'
