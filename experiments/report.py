"""Tables and plots of all records: `docs/evidence/README.md`, its pictures, and the evidence section of the README."""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.commands import SPLITS
from experiments.plots import draw_bars, draw_curves
from experiments.results import Row, class_iou, compare, mean_text, miou, read_rows
from experiments.systems import BOUND, CAUSE, ROOT, SETTINGS
from rass_mm.atomic import write_text
from rass_mm.errors import DataError
from rass_mm.evaluation.tables import markdown_table

DOCS = Path('docs/evidence')
README = Path('README.md')
NUMBER = re.compile(r'\{(\w+): (\w+)(?: - (\w+))?(?: (\w+))?\}')
BEGIN, END = '<!-- evidence: begin (python -m experiments report) -->', '<!-- evidence: end -->'


class Question(NamedTuple):
    """What is asked, and the two systems whose difference in mIoU on a split answers it."""

    text: str
    better: str
    worse: str
    split: str = 'degraded'


QUESTIONS = (
    Question('RASS > base without SCR', 'rass', 'base'),
    Question('base without SCR > FT', 'base', 'ft'),
    Question('RASS > FT', 'rass', 'ft'),
    Question('base without SCR > R2S', 'base', 'r2s'),
    Question('FT > DT', 'ft', 'dt'),
    Question('R2S > DT', 'r2s', 'dt'),
    Question('R2S > FT', 'r2s', 'ft'),
    Question('RASS > R2S', 'rass', 'r2s'),
    Question('lambda 0.1 > lambda 0 (RASS)', 'rass', 'rass_l0'),
    Question('trained base > random UNet', 'base', 'random'),
    Question('class tokens > empty prompts', 'rass', 'rass_empty'),
    Question("with > without the encoder's features", 'rass', 'rass_noshortcut'),
    Question('LoRA > all of the UNet trained', 'rass', 'rass_full'),
    Question('LoRA > all of the UNet trained at 3e-4', 'rass', 'rass_full_slow'),
    Question('ground-truth tags > class tokens', 'rass_tags', 'rass'),
    Question('RASS > RASS trained clean', 'rass', 'rass_clean'),
    Question('RASS trained clean > RASS, on clean images', 'rass_clean', 'rass', 'clean'),
    Question('RASS > base without SCR, 3600 steps', 'rass_long', 'base_long'),
    Question('base without SCR > FT, 3600 steps', 'base_long', 'ft_long'),
    Question('RASS > FT, 3600 steps', 'rass_long', 'ft_long'),
    Question('base without SCR > R2S, 3600 steps', 'base_long', 'r2s_long'),
    Question('FT > DT, 3600 steps', 'ft_long', 'dt_long'),
    Question('R2S > DT, 3600 steps', 'r2s_long', 'dt_long'),
    Question('R2S > FT, 3600 steps', 'r2s_long', 'ft_long'),
    Question('RASS > R2S, 3600 steps', 'rass_long', 'r2s_long'),
    Question('RASS > base without SCR, 10800 steps', 'rass_longer', 'base_longer'),
    Question('base without SCR > FT, 10800 steps', 'base_longer', 'ft_longer'),
    Question('FT > DT, crops of 128x128', 'ft_crop', 'dt_crop'),
    Question('FT > DT, group norm', 'ft_gn', 'dt_gn'),
    Question('base without SCR > FT with group norm', 'base', 'ft_gn'),
    Question('FT > DT, photometric distortion', 'ft_photo', 'dt_photo'),
    Question('base without SCR > FT, photometric distortion', 'base_photo', 'ft_photo'),
    Question('RASS > base without SCR, photometric distortion', 'rass_photo', 'base_photo'),
    Question('lambda 1 > lambda 0 (RASS)', 'rass_l1', 'rass_l0'),
    Question('lambda 1 > lambda 0.1 (RASS)', 'rass_l1', 'rass'),
    Question("RASS > base without SCR, longer by SCR's cost", 'rass', 'base_equal'),
    Question('RASS > base without SCR, base of 300 steps', 'rass_short', 'base_short'),
    Question('RASS > base without SCR, timestep 200', 'rass_t200', 'base_t200'),
    Question('timestep 1 > timestep 200 (RASS)', 'rass', 'rass_t200'),
    Question('RASS > base without SCR, 2000 labelled images', 'rass_more', 'base_more'),
    Question('base without SCR > FT, 2000 labelled images', 'base_more', 'ft_more'),
    Question('base of its own domain > base of scenes', 'base', 'base_scenes'),
    Question('base from scenes > base of CamVid only', 'base', 'base_alone'),
)


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


def with_numbers(text: str, settings: Mapping[str, Sequence[Row]]) -> str:
    """Fills in what a text says of the records, with one decimal.

    `{scenes: ft}` is the mean of a system's mIoU over the seeds, `{scenes: rass - base}` that of the differences seed
    by seed. Both are of degraded images; a last word names another test: `{scenes: rass - base clean}`, or
    `{scenes: scr_l0 - scr restore}`, which is PSNR.

    Raises:
        DataError: a data set or system without records.
    """

    def number(match: re.Match[str]) -> str:
        setting, *names, test = match.groups(default='')
        row_of = {row.system.name: row for row in settings.get(setting, ())}
        rows = [row_of.get(name) for name in names if name]
        if None in rows:
            raise DataError(f'{ROOT}/summary.md says {match[0]}, but that has no record. Run it or leave it out.')
        value = (lambda record: record['tests'][test]['PSNR']) if test == 'restore' else miou(test or 'degraded')
        values = rows[0].values(value) if len(rows) == 1 else compare(*rows, value).differences
        return f'{statistics.fmean(values):.1f}'

    return NUMBER.sub(number, text)


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


def question_table(rows: Sequence[Row], questions: Sequence[Question] = QUESTIONS) -> str:
    """Differences by seed, their mean and spread, and the verdict."""
    known = {row.system.name: row for row in rows}
    cells = []
    for text, better, worse, split in questions:
        if better in known and worse in known:
            found = compare(known[better], known[worse], miou(split))
            if found.seeds:
                by_seed = ', '.join(f'{difference:+.2f}' for difference in found.differences)
                cells.append([text, by_seed, mean_text(found.differences), found.verdict])
    head = ['question (degraded images, unless said)', 'difference by seed', 'mean', 'holds?']
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
