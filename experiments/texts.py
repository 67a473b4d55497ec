"""Inserts numbers from the records into the texts of the report."""

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from scipy.stats import false_discovery_control

from experiments.questions import Question, answers
from experiments.results import Comparison, Row, compare, miou
from experiments.store import read_bases
from experiments.systems import ROOT, SETTINGS
from rass_mm.errors import DataError

NUMBER = re.compile(r'\{(\w+): (\w+)(?: - (\w+))?(?: (\w+))?\}')
LEVEL = 0.05
Settings = Mapping[str, Sequence[Row]]


def with_numbers(text: str, settings: Settings) -> str:
    """Replaces the placeholders of a text by numbers from the records.

    `{scenes: ft}` is the mean over the seeds of a system's mIoU on degraded images, `{scenes: rass - base}` the mean of
    the differences by seed with its 95 % interval, all with one decimal. A last word selects another test, as in
    `{scenes: rass - base clean}`. `restore` is PSNR and `seconds` the time of the training steps. `{fact: asked}`
    inserts one of `FACTS`.

    Raises:
        DataError: a data set or system has no records, or a fact is unknown.
    """
    return NUMBER.sub(lambda match: _number(match, settings), text)


def _number(match: re.Match[str], settings: Settings) -> str:
    setting, *names, test = match.groups(default='')
    if setting == 'fact' and names[0] in FACTS:
        return FACTS[names[0]](settings)
    row_of = {row.system.name: row for row in settings.get(setting, ())}
    rows = [row_of.get(name) for name in names if name]
    if None in rows:
        raise DataError(f'A text in {ROOT} says {match[0]}: that has no record. Run the system or remove it.')
    value = {'restore': lambda record: record['tests']['restore']['PSNR'], 'seconds': lambda record: record['seconds']}
    value = value.get(test, miou(test or 'degraded'))
    if len(rows) == 1:
        return f'{statistics.fmean(rows[0].values(value)):.{0 if test == "seconds" else 1}f}'
    return _difference(compare(*rows, value))


def _difference(found: Comparison) -> str:
    mean = f'{statistics.fmean(found.differences):.1f}'
    return f'{mean} [{found.interval[0]:.1f}, {found.interval[1]:.1f}]' if found.interval else mean


def whole_answers(settings: Settings) -> list[tuple[str, Question, Comparison]]:
    """Returns data set, question and answer for all questions with complete seeds, smallest p-value first."""
    found = [(name, *answer) for name, rows in settings.items() for answer in answers(rows).items()]
    return sorted((answer for answer in found if answer[2].whole), key=lambda answer: answer[2].p_value)


def holm(settings: Settings) -> list[tuple[str, Question, Comparison]]:
    """Returns the answers that are significant at 5 % after Holm's correction for multiple questions."""
    found = whole_answers(settings)
    passed = [answer[2].p_value <= LEVEL / (len(found) - rank) for rank, answer in enumerate(found)]
    return found[: passed.index(False) if False in passed else len(found)]


def _holm_rows(settings: Settings) -> str:
    return '; '.join(
        f'{question.text} ({SETTINGS[name].split()[0].strip(",")})' for name, question, _ in holm(settings)
    )


def _holm_rass(settings: Settings) -> str:
    return str(sum('rass' in (question.better + question.worse) for _, question, _ in holm(settings)))


def _benjamini_hochberg(settings: Settings) -> str:
    adjusted = false_discovery_control([answer[2].p_value for answer in whole_answers(settings)])
    return str(int((adjusted <= LEVEL).sum()))


def _agree(settings: Settings) -> str:
    return str(sum(answer[2].signs.startswith('agree') for answer in whole_answers(settings)))


def _noise(setting: str, _settings: Settings) -> str:
    return f'{read_bases()[setting][setting]["loss_by_time"]["1"]:.2f}'


def _interpolated(setting: str, settings: Settings, steps: int = 1900) -> str:
    """Returns the mIoU of the base without SCR, interpolated to the training cost of RASS (row `base_equal`)."""
    short, long = (next(row for row in settings[setting] if row.system.name == name) for name in ('base', 'base_long'))
    low, high = (statistics.fmean(row.values(miou('degraded'))) for row in (short, long))
    share = math.log(steps / short.first['steps']) / math.log(long.first['steps'] / short.first['steps'])
    return f'{low + share * (high - low):.1f}'


def _unseen_classes(setting: str, settings: Settings) -> str:
    """Returns the classes that no system with 1200 steps predicts correctly in any degraded image."""
    tests = [
        record['tests']['degraded']['IoU']
        for row in settings[setting]
        for record in row.by_seed.values()
        if not row.system.restores and record.get('steps') == 1200
    ]
    return ', '.join(sorted(name for name in tests[0] if all(test.get(name) == 0 for test in tests)))


FACTS: dict[str, Callable[[Settings], str]] = {
    'asked': lambda settings: str(len(whole_answers(settings))),
    'agree': _agree,
    'chance': lambda settings: str(len(whole_answers(settings)) // 4),
    'holm': lambda settings: str(len(holm(settings))),
    'holm_rows': _holm_rows,
    'holm_rass': _holm_rass,
    'benjamini_hochberg': _benjamini_hochberg,
    'noise_scenes': partial(_noise, 'scenes'),
    'noise_camvid': partial(_noise, 'camvid'),
    'equal_scenes': partial(_interpolated, 'scenes'),
    'equal_camvid': partial(_interpolated, 'camvid'),
    'unseen_camvid': partial(_unseen_classes, 'camvid'),
}
"""Numbers and names from many records, by their name in a text."""
