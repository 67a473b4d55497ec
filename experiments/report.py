"""Writes the report from the records: `docs/evidence/README.md`, its plots and the six lines of the README."""

from collections.abc import Sequence
from pathlib import Path

from experiments.commands import SPLITS
from experiments.plots import draw_bars, draw_curves
from experiments.results import Row, read_rows
from experiments.store import RESULTS
from experiments.systems import ROOT, SETTINGS
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
    settings = {name: rows for name in SETTINGS if (rows := read_rows(name))}
    if not settings:
        raise DataError(f'{RESULTS} contains no records. Run `python -m experiments run` first.')
    for name, rows in settings.items():
        draw_bars(DOCS / name / 'miou.png', SETTINGS[name], segmentors(rows))
        draw_curves(DOCS / name / 'curves.png', SETTINGS[name], segmentors(rows))
    write_text(DOCS / 'README.md', page(settings))
    write_text(README, with_section(README.read_text(), readme_part(settings)))


def page(settings: dict[str, list[Row]]) -> str:
    """Returns the text of the page: findings, then the tables of each data set."""
    parts = [f'# Evidence\n\n{_text("explanation.md", settings)}']
    parts += [setting_part(name, rows) for name, rows in settings.items()]
    return '\n\n'.join(parts) + '\n'


def readme_part(settings: dict[str, list[Row]]) -> str:
    """Returns the lines of the README."""
    return _text('summary.md', settings)


def _text(name: str, settings: dict[str, list[Row]]) -> str:
    return with_numbers((ROOT / name).read_text().strip(), settings)


def setting_part(setting: str, rows: Sequence[Row]) -> str:
    """Returns the section of one data set with all tables and plots."""
    parts = [f'## {SETTINGS[setting]}', protocol(rows), score_table(setting, rows)]
    parts += [_titled('The questions, paired by seed', question_table(setting, rows))]
    parts += [f'![mIoU per system]({setting}/miou.png)', f'![learning curves]({setting}/curves.png)']
    parts += [_titled('Restorers', restorer_table(setting, rows)), _titled('Bases', base_part(setting))]
    parts += [_titled(f'IoU per class (%), {split}', class_table(rows, split)) for split in SPLITS]
    if (DOCS / setting / 'gains.png').is_file():
        parts += [_titled('Best, median and worst gains', f'![gains]({setting}/gains.png)')]
    parts += [_titled('The rows again', commands_part(rows))]
    return '\n\n'.join(part for part in parts if part)


def _titled(title: str, text: str) -> str:
    return f'### {title}\n\n{text}' if text else ''


def protocol(rows: Sequence[Row]) -> str:
    """Returns a sentence on how the numbers of the tables were measured."""
    record = segmentors(rows)[0].first
    devices = sorted({r['device'] for row in rows for r in row.by_seed.values()})
    return (
        f'mIoU (%) over all pixels, mean ± sample standard deviation over the seeds; degraded: '
        f'{record["tests"]["degraded"]["protocol"]}; degradation: recipe version {record["recipe_version"]}. Seconds '
        f'are those of the training steps, two runs side by side, one thread each. Device: {"; ".join(devices)}.'
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
