"""Tables and plots of all records: `docs/evidence/README.md`, its pictures, and the evidence section of the README."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from experiments.commands import SPLITS
from experiments.plots import draw_bars, draw_curves
from experiments.questions import answers
from experiments.results import Row, class_iou, mean_text, miou, read_rows
from experiments.systems import BOUND, CAUSE, ROOT, SETTINGS
from experiments.texts import with_numbers
from rass_mm.analysis.report.tables import markdown_table
from rass_mm.errors import DataError
from rass_mm.files.atomic import write_text

DOCS = Path('docs/evidence')
README = Path('README.md')
BEGIN, END = '<!-- evidence: begin (python -m experiments report) -->', '<!-- evidence: end -->'


def write_report() -> None:
    """Writes everything anew from the records.

    Raises:
        DataError: there are no records, or the README has lost its markers.
    """
    settings = {name: rows for name in SETTINGS if (rows := read_rows(name))}
    if not settings:
        raise DataError(f'{ROOT}/results holds no records yet. Run `python -m experiments run` first.')
    for name, rows in settings.items():
        draw_bars(DOCS / name / 'miou.png', SETTINGS[name], segmentors(rows))
        draw_curves(DOCS / name / 'curves.png', SETTINGS[name], segmentors(rows))
    parts = [f'# Evidence\n\n{(ROOT / "explanation.md").read_text().strip()}']
    parts += [setting_part(name, rows) for name, rows in settings.items()]
    write_text(DOCS / 'README.md', '\n\n'.join(parts) + '\n')
    write_text(README, with_section(README.read_text(), readme_part(settings)))


def segmentors(rows: Sequence[Row]) -> list[Row]:
    """Without the restorers."""
    return [row for row in rows if not row.system.restores]


def setting_part(setting: str, rows: Sequence[Row]) -> str:
    """All tables of one data set."""
    parts = [f'## {SETTINGS[setting]}', protocol(rows), score_table(rows)]
    parts += [_titled('The questions, paired by seed', question_table(rows))]
    parts += [f'![mIoU per system]({setting}/miou.png)', f'![learning curves]({setting}/curves.png)']
    parts += [_titled('Restorers', restorer_table(rows)), _titled('Bases', base_part(setting))]
    parts += [_titled(f'IoU per class (%), {split}', class_table(rows, split)) for split in SPLITS]
    if (DOCS / setting / 'gains.png').is_file():
        parts += [_titled('Best, median and worst gains', f'![gains]({setting}/gains.png)')]
    parts += [_titled('The rows again', commands_part(rows))]
    return '\n\n'.join(part for part in parts if part)


def _titled(title: str, text: str) -> str:
    return f'### {title}\n\n{text}' if text else ''


def protocol(rows: Sequence[Row]) -> str:
    """What the numbers are."""
    record = segmentors(rows)[0].first
    devices = sorted({r['device'] for row in rows for r in row.by_seed.values()})
    return (
        f'mIoU (%) over all pixels, mean ± sample standard deviation over the seeds; degraded: '
        f'{record["tests"]["degraded"]["protocol"]}; degradation: recipe version {record["recipe_version"]}. Seconds '
        f'are those of the training steps, two runs side by side, one thread each. Device: {"; ".join(devices)}.'
    )


def score_table(rows: Sequence[Row]) -> str:
    """mIoU on both splits, steps and seconds."""
    cells = []
    for row in segmentors(rows):
        mark = {BOUND: ' (upper bound)', CAUSE: ' (cause)'}.get(row.system.group, '')
        trained = 'seconds' in row.first
        cells.append(
            [
                row.system.title + mark,
                *(mean_text(row.values(miou(split))) for split in SPLITS),
                str(len(row.by_seed)),
                str(row.first['steps']) if trained else '-',
                f'{sum(row.values(lambda r: r["seconds"])) / len(row.by_seed):.0f}' if trained else '-',
            ]
        )
    return markdown_table(['system', *SPLITS, 'seeds', 'steps', 'seconds'], cells).strip()


def question_table(rows: Sequence[Row]) -> str:
    """Differences by seed, their mean, spread and interval, and whether their signs agree."""
    cells = [
        [
            question.text,
            ', '.join(f'{difference:+.2f}' for difference in found.differences),
            mean_text(found.differences),
            '[{:+.2f}, {:+.2f}]'.format(*found.interval) if found.interval else '-',
            found.signs,
        ]
        for question, found in answers(rows)
    ]
    head = ['question (degraded images, unless said)', 'difference by seed', 'mean', '95 % interval', 'signs']
    return markdown_table(head, cells).strip() if cells else ''


def restorer_table(rows: Sequence[Row]) -> str:
    """PSNR and SSIM of input, restored images and ceiling; attention."""
    restorers = [row for row in rows if row.system.restores]
    if not restorers:
        return ''
    first = restorers[0].first['tests']
    cells = [
        ['degraded input', f'{first["restore"]["input_PSNR"]:.2f}', f'{first["restore"]["input_SSIM"]:.3f}', *'----']
    ]
    for row in restorers:
        texts = [
            mean_text(row.values(lambda r, k=key: r['tests']['restore'][k]), digits)
            for key, digits in (('PSNR', 2), ('SSIM', 3), ('attention_ratio', 3), ('attention_chance', 3))
        ]
        seconds = sum(row.values(lambda r: r['seconds'])) / len(row.by_seed)
        cells.append([row.system.title, *texts, str(row.first['steps']), f'{seconds:.0f}'])
        ceiling = row.first['tests']['ceiling']
    cells.append(
        ['ceiling: clean through the autoencoder', f'{ceiling["PSNR"]:.2f}', f'{ceiling["SSIM"]:.3f}', *'----']
    )
    head = ['images', 'PSNR (dB)', 'SSIM', 'attention ratio', 'chance', 'steps', 'seconds']
    return markdown_table(head, cells).strip()


def base_part(setting: str) -> str:
    """What `judge-base` found, and the samples it drew."""
    table = base_table(setting)
    pictures = [f'![samples of {f.stem}]({setting}/{f.name})' for f in sorted((DOCS / setting).glob('samples-*.png'))]
    return '\n\n'.join([table, *pictures]) if table else ''


def base_table(setting: str) -> str:
    """Noise loss by caption on unseen images, attention at timestep 1, and the autoencoder's PSNR."""
    file = ROOT / 'results' / setting / 'bases.json'
    if not file.is_file():
        return ''
    cells = []
    for name, found in json.loads(file.read_text()).items():
        training = found['training']
        cells.append(
            [
                name,
                f'{training["vae_steps"]} + {training["unet_steps"]}',
                *(f'{found[key]:.4f}' for key in ('loss', 'loss_empty', 'loss_wrong')),
                f'{found["loss_by_time"]["1"]:.4f}',
                f'{found["attention_ratio"]:.3f}',
                f'{found["attention_chance"]:.3f}',
                f'{found["autoencoder_PSNR_RGB"]:.2f}',
            ]
        )
    head = [
        'base',
        'steps (VAE + UNet)',
        'noise loss',
        'no caption',
        'wrong caption',
        'at timestep 1',
        'attention ratio',
        'chance',
        'PSNR',
    ]
    return markdown_table(head, cells).strip()


def class_table(rows: Sequence[Row], split: str) -> str:
    """IoU of every class, mean over seeds with the spread."""
    names = list(segmentors(rows)[0].first['tests'][split]['IoU'])
    cells = []
    for row in segmentors(rows):
        values = {name: [v for v in row.values(class_iou(split, name)) if not math.isnan(v)] for name in names}
        cells.append([row.system.title, *(mean_text(values[name], 1) if values[name] else '-' for name in names)])
    return markdown_table(['system', *names], cells).strip()


def commands_part(rows: Sequence[Row]) -> str:
    """The commands of the lowest seed of every row, and the revision they ran at."""
    lines = [
        'Seed 0 is shown. All seeds of a row again, beside what is recorded: '
        '`python -m experiments run SETTING --systems NAME --again`.',
        '',
    ]
    for row in rows:
        lines += [f'{row.system.title} (`{row.system.name}`, revision {row.first["revision"]}):', '', '```bash']
        lines += [*row.first['commands'], '```', '']
    return '\n'.join(lines).strip()


def readme_part(settings: dict[str, list[Row]]) -> str:
    """The README's section: scores and answers of both data sets."""
    parts = [with_numbers((ROOT / 'summary.md').read_text().strip(), settings)]
    for name, rows in settings.items():
        parts += [f'**{SETTINGS[name]}**, measured:', score_table(rows), question_table(rows)]
    return '\n\n'.join(part for part in parts if part)


def with_section(text: str, section: str) -> str:
    """The README with the text between the markers replaced.

    Raises:
        DataError: the markers are not there, once each and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f'{README} needs the lines {BEGIN!r} and {END!r}, once each and in this order.')
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f'{before}{BEGIN}\n\n{section}\n\n{END}{after}'
