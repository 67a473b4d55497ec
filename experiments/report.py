"""Writes the report from the records: `docs/evidence/README.md`, its plots and the six lines of the README."""

from collections.abc import Sequence
from pathlib import Path

from experiments.commands import SPLITS
from experiments.plots import draw_bars, draw_curves, draw_differences
from experiments.questions import Answer, Answers, Groups, all_answers
from experiments.results import GROUPS, TITLES, Row, read_rows
from experiments.store import RESULTS
from experiments.systems import FIRST, ROOT
from experiments.tables import base_table, class_table, question_table, restorer_table, score_table, segmentors
from experiments.texts import with_numbers
from rass_mm.errors import DataError
from rass_mm.files.atomic import write_text

DOCS = Path('docs/evidence')
README = Path('README.md')
BEGIN, END = '<!-- evidence: begin (python -m experiments report) -->', '<!-- evidence: end -->'


def write_report() -> None:
    """Writes the complete report.

    Raises:
        DataError: there are no records, or the README lacks the markers.
    """
    groups = {name: read_rows(name) for name in GROUPS}
    if not any(groups.values()):
        raise DataError(f'{RESULTS} contains no records. Run `python -m experiments run` first.')
    answered = all_answers(groups)
    for name, rows in groups.items():
        if segmentors(rows):
            draw_bars(DOCS / name / 'miou.png', TITLES[name], segmentors(rows))
            draw_curves(DOCS / name / 'curves.png', TITLES[name], segmentors(rows))
        if answered.get(name):
            draw_differences(DOCS / name / 'differences.png', TITLES[name], answered[name])
    write_text(DOCS / 'README.md', page(groups, answered))
    write_text(README, with_section(README.read_text(), readme_part(groups, answered)))


def page(groups: Groups, answered: Answers) -> str:
    """Returns the text of the page: findings, then the tables of each data set."""
    parts = [f'# Evidence\n\n{_text("explanation.md", groups, answered)}']
    parts += [setting_part(name, rows, answered.get(name, ())) for name, rows in groups.items()]
    return '\n\n'.join(parts) + '\n'


def readme_part(groups: Groups, answered: Answers) -> str:
    """Returns the lines of the README."""
    return _text('summary.md', groups, answered)


def _text(name: str, groups: Groups, answered: Answers) -> str:
    return with_numbers((ROOT / name).read_text().strip(), groups, answered)


def setting_part(group: str, rows: Sequence[Row], answered: Sequence[Answer]) -> str:
    """Returns the section of one data set with all tables and plots."""
    known = bool(segmentors(rows))
    parts = [f'## {TITLES[group]}', protocol(rows) if known else 'No complete records yet.', score_table(group, rows)]
    parts += [_titled('The questions, paired by seed', question_table(group, answered))]
    parts += [_picture('mean differences with intervals', group, 'differences')]
    parts += [_picture('mIoU per system', group, 'miou'), _picture('learning curves', group, 'curves')]
    parts += [_titled('Restorers', restorer_table(group, rows)), _titled('Bases', base_part(group))]
    parts += [_titled(f'IoU per class (%), {split}', class_table(rows, split)) for split in SPLITS if known]
    parts += [_titled('Best, median and worst gains', _picture('gains', group, 'gains'))]
    parts += [_titled('The rows again', commands_part(rows)) if known else '']
    return '\n\n'.join(part for part in parts if part)


def _picture(title: str, group: str, name: str) -> str:
    """Returns a reference to a picture, or nothing if it does not exist."""
    return f'![{title}]({group}/{name}.png)' if (DOCS / group / f'{name}.png').is_file() else ''


def _titled(title: str, text: str) -> str:
    return f'### {title}\n\n{text}' if text else ''


def protocol(rows: Sequence[Row]) -> str:
    """Returns a sentence on how the numbers of the tables were measured."""
    record = segmentors(rows)[0].first
    devices = sorted({r['device'] for row in rows for r in row.by_seed.values()})
    tests = [test for row in segmentors(rows) for test in row.first['tests'].values()]
    counted = record['setting'] not in FIRST and all(test.get('counts') for test in tests)
    interval = 'over seeds and images' if counted else 'over seeds only: the records have no pixel counts'
    return (
        f'mIoU (%) over all pixels, mean ± sample standard deviation over the seeds; degraded: '
        f'{record["tests"]["degraded"]["protocol"]}; degradation: recipe version {record["recipe_version"]}. '
        f'Intervals: {interval}. Device: {"; ".join(devices)}.'
    )


def base_part(setting: str) -> str:
    """Returns the section with the table and samples of the bases."""
    table = base_table(setting)
    pictures = [f'![samples of {f.stem}]({setting}/{f.name})' for f in sorted((DOCS / setting).glob('samples-*.png'))]
    return '\n\n'.join([table, *pictures]) if table else ''


def commands_part(rows: Sequence[Row]) -> str:
    """Returns the section with the commands of the lowest seed of every row, and the revision of the run."""
    lines = [
        'Seed 0, as typed in this checkout; at the revision named, the config of the same values may have another '
        'name. All seeds of a row again, beside the recorded ones: '
        '`python -m experiments run SETTING --systems NAME --again`.',
        '',
    ]
    for row in rows:
        lines += [f'{row.system.title} (`{row.system.name}`, revision {row.first["revision"]}):', '', '```bash']
        lines += [*row.first['commands'], '```', '']
    return '\n'.join(lines).strip()


def with_section(text: str, section: str) -> str:
    """Returns the README with the text between the markers replaced.

    Raises:
        DataError: the markers are missing, repeated or in the wrong order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f'{README} must contain the lines {BEGIN!r} and {END!r}, once each and in this order.')
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f'{before}{BEGIN}\n\n{section}\n\n{END}{after}'
