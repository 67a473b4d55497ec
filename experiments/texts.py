"""Inserts numbers from the records into the texts of the report."""

import math
import re
import statistics
from collections.abc import Callable
from functools import partial

from experiments.questions import SECOND_QUESTIONS, Answer, Answers, Groups, questions_of
from experiments.results import DECIDED, FAMILIES, GROUPS, NOT_RUN, TITLES, Comparison, compare, miou
from experiments.statistics import LEVEL
from experiments.store import read_bases
from experiments.systems import ROOT, systems_of
from rass_mm.errors import DataError

NUMBER = re.compile(r'\{(\w+): (\w+)(?: - (\w+))?(?: (\w+))?\}')
PSNR = 'restore'


def with_numbers(text: str, groups: Groups, answered: Answers) -> str:
    """Replaces the placeholders of a text by numbers from the records.

    `{scenes: ft}` is the mean over the seeds of a system's mIoU on degraded images, `{scenes: rass - base}` the mean of
    the differences by seed with its 95 % interval, all with one decimal. A last word selects another test, as in
    `{scenes: rass - base clean}`; `restore` is PSNR. On the data sets with pixel counts, the verdict after the
    correction follows a difference in mIoU, and what has no record is `not run`. `{fact: asked}` inserts one of
    `FACTS`.

    Raises:
        DataError: a data set or system has no records, a difference belongs to no question, or a fact is unknown.
    """
    return NUMBER.sub(lambda match: _number(match, groups, answered), text)


def _number(match: re.Match[str], groups: Groups, answered: Answers) -> str:
    group, *names, test = match.groups(default='')
    if group == 'fact' and names[0] in FACTS:
        return FACTS[names[0]](groups, answered)
    if group in FAMILIES['second'] and names[1] and test != PSNR:
        return _verdict(group, (*names, test or 'degraded'), answered)
    row_of = {row.system.name: row for row in groups.get(group, ())}
    rows = [row_of.get(name) for name in names if name]
    if None in rows:
        planned = {system.name for system in systems_of(GROUPS[group][0])} if group in FAMILIES['second'] else set()
        if planned >= {name for name in names if name}:
            return NOT_RUN
        raise DataError(f'A text in {ROOT} says {match[0]}: that has no record. Run the system or remove it.')
    value = (lambda record: record['tests'][PSNR]['PSNR']) if test == PSNR else miou(test or 'degraded')
    return f'{statistics.fmean(rows[0].values(value)):.1f}' if len(rows) == 1 else _difference(compare(*rows, value))


def _verdict(group: str, asked: tuple[str, ...], answered: Answers) -> str:
    """Returns the difference, interval and verdict of the question about two systems and a split."""
    if asked not in [question[1:] for question in SECOND_QUESTIONS]:
        raise DataError(f'A text in {ROOT} names {" - ".join(asked[:2])} on {group}: that is not one of its questions.')
    for answer in answered.get(group, ()):
        if answer.question[1:] == asked:
            return f'{_difference(answer.comparison)} ({answer.verdict})'
    return NOT_RUN


def _difference(found: Comparison) -> str:
    mean = f'{statistics.fmean(found.differences):.1f}'
    return f'{mean} [{found.interval[0]:.1f}, {found.interval[1]:.1f}]' if found.interval else mean


def whole_answers(answered: Answers, family: str = 'first') -> list[tuple[str, Answer]]:
    """Returns the data set and the answer of all questions of a family with complete seeds, smallest p-value first."""
    found = [(name, answer) for name in FAMILIES[family] for answer in answered.get(name, ())]
    whole = [(name, answer) for name, answer in found if answer.comparison.whole]
    return sorted(whole, key=lambda pair: pair[1].comparison.p_value)


def holm(answered: Answers) -> list[tuple[str, Answer]]:
    """Returns the answers of the first family that are significant at 5 % after Holm's correction."""
    found = whole_answers(answered)
    passed = [answer.comparison.p_value <= LEVEL / (len(found) - rank) for rank, (_, answer) in enumerate(found)]
    return found[: passed.index(False) if False in passed else len(found)]


def _holm_rows(_groups: Groups, answered: Answers) -> str:
    return '; '.join(
        f'{answer.question.text} ({TITLES[name].split()[0].strip(",")})' for name, answer in holm(answered)
    )


def _holm_rass(_groups: Groups, answered: Answers) -> str:
    return str(sum('rass' in (answer.question.better + answer.question.worse) for _, answer in holm(answered)))


def _count(_groups: Groups, answered: Answers, family: str, of: Callable[[Answer], bool]) -> str:
    return str(sum(of(answer) for _, answer in whole_answers(answered, family)))


def _planned(_groups: Groups, _answered: Answers) -> str:
    return str(sum(len(questions_of(name)) for name in FAMILIES['second']))


def _decided(answer: Answer) -> bool:
    return answer.verdict in DECIDED


def _noise(setting: str, _groups: Groups, _answered: Answers) -> str:
    return f'{read_bases()[setting][setting]["loss_by_time"]["1"]:.2f}'


def _interpolated(setting: str, groups: Groups, _answered: Answers, steps: int = 1900) -> str:
    """Returns the mIoU of the base without SCR, interpolated to the training cost of RASS (row `base_equal`)."""
    short, long = (next(row for row in groups[setting] if row.system.name == name) for name in ('base', 'base_long'))
    low, high = (statistics.fmean(row.values(miou('degraded'))) for row in (short, long))
    share = math.log(steps / short.first['steps']) / math.log(long.first['steps'] / short.first['steps'])
    return f'{low + share * (high - low):.1f}'


def _unseen_classes(setting: str, groups: Groups, _answered: Answers) -> str:
    """Returns the classes that no system with 1200 steps predicts correctly in any degraded image."""
    tests = [
        record['tests']['degraded']['IoU']
        for row in groups[setting]
        for record in row.by_seed.values()
        if not row.system.restores and record.get('steps') == 1200
    ]
    return ', '.join(sorted(name for name in tests[0] if all(test.get(name) == 0 for test in tests)))


FACTS: dict[str, Callable[[Groups, Answers], str]] = {
    'asked': partial(_count, family='first', of=lambda _: True),
    'agree': partial(_count, family='first', of=lambda answer: answer.comparison.signs.startswith('agree')),
    'chance': lambda _, answered: str(len(whole_answers(answered)) // 4),
    'holm': lambda _, answered: str(len(holm(answered))),
    'holm_rows': _holm_rows,
    'holm_rass': _holm_rass,
    'benjamini_hochberg': partial(_count, family='first', of=_decided),
    'second_planned': _planned,
    'second_asked': partial(_count, family='second', of=lambda _: True),
    'second_decided': partial(_count, family='second', of=_decided),
    'noise_scenes': partial(_noise, 'scenes'),
    'noise_camvid': partial(_noise, 'camvid'),
    'equal_scenes': partial(_interpolated, 'scenes'),
    'equal_camvid': partial(_interpolated, 'camvid'),
    'unseen_camvid': partial(_unseen_classes, 'camvid'),
}
"""Numbers and names from many records, by their name in a text."""
