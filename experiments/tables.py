"""Builds the tables of the report from the records of a data set."""

import math
from collections.abc import Sequence
from typing import Any

from experiments.commands import SPLITS
from experiments.questions import answers, questions_of
from experiments.results import Row, class_iou, mean_text, miou
from experiments.store import read_bases
from experiments.systems import BOUND, CAUSE, System, systems_of
from rass_mm.analysis.report.tables import markdown_table

NOT_RUN = 'not run'


def segmentors(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of all segmentors."""
    return [row for row in rows if not row.system.restores]


def score_table(setting: str, rows: Sequence[Row]) -> str:
    """Returns a table of the mIoU on both splits, steps and seconds of every planned segmentor."""
    cells = [[_marked(system), *_scores(row)] for system, row in _planned(setting, rows) if not system.restores]
    return markdown_table(['system', *SPLITS, 'seeds', 'steps', 'seconds'], cells).strip()


def _planned(setting: str, rows: Sequence[Row]) -> list[tuple[System, Row | None]]:
    known = {row.system.name: row for row in rows}
    return [(system, known.get(system.name)) for system in systems_of(setting)]


def _marked(system: System) -> str:
    return system.title + {BOUND: ' (upper bound)', CAUSE: ' (cause)'}.get(system.group, '')


def _scores(row: Row | None) -> list[str]:
    if row is None:
        return [*[NOT_RUN] * len(SPLITS), '0', '-', '-']
    means = [mean_text(row.values(miou(split))) for split in SPLITS]
    trained = [str(row.first['steps']), _mean_seconds(row)] if 'seconds' in row.first else ['-', '-']
    return [*means, str(len(row.by_seed)), *trained]


def _mean_seconds(row: Row) -> str:
    return f'{sum(row.values(lambda record: record["seconds"])) / len(row.by_seed):.0f}'


def question_table(setting: str, rows: Sequence[Row]) -> str:
    """Returns a table of all planned questions: differences by seed with mean, deviation, interval and sign."""
    found = answers(rows)
    cells = []
    for question in questions_of(setting):
        answer = found.get(question)
        if answer is None:
            cells.append([question.text, '-', '-', '-', NOT_RUN])
            continue
        differences = ', '.join(f'{difference:+.2f}' for difference in answer.differences)
        interval = '[{:+.2f}, {:+.2f}]'.format(*answer.interval) if answer.interval else '-'
        cells.append([question.text, differences, mean_text(answer.differences), interval, answer.signs])
    head = ['question (degraded images, unless said)', 'difference by seed', 'mean', '95 % interval', 'signs']
    return markdown_table(head, cells).strip()


def restorer_table(setting: str, rows: Sequence[Row]) -> str:
    """Returns a table of PSNR and SSIM (input, restored, ceiling) and attention of every planned restorer."""
    restorers = [(system, row) for system, row in _planned(setting, rows) if system.restores]
    tests = [row.first['tests'] for _, row in restorers if row]
    if not tests:
        return ''
    restored, ceiling = tests[0]['restore'], tests[-1]['ceiling']
    cells = [
        ['degraded input', f'{restored["input_PSNR"]:.2f}', f'{restored["input_SSIM"]:.3f}', *'----'],
        *([system.title, *_restored(row)] for system, row in restorers),
        ['ceiling: clean through the autoencoder', f'{ceiling["PSNR"]:.2f}', f'{ceiling["SSIM"]:.3f}', *'----'],
    ]
    head = ['images', 'PSNR (dB)', 'SSIM', 'attention ratio', 'chance', 'steps', 'seconds']
    return markdown_table(head, cells).strip()


def _restored(row: Row | None) -> list[str]:
    if row is None:
        return [NOT_RUN, *'-----']
    texts = [
        mean_text(row.values(lambda record, key=key: record['tests']['restore'][key]), digits)
        for key, digits in (('PSNR', 2), ('SSIM', 3), ('attention_ratio', 3), ('attention_chance', 3))
    ]
    return [*texts, str(row.first['steps']), _mean_seconds(row)]


def base_table(setting: str) -> str:
    """Returns a table of the bases: noise loss by caption, attention at timestep 1 and PSNR of the autoencoder."""
    cells = [[name, *_judged(found)] for name, found in read_bases().get(setting, {}).items()]
    captions = ['noise loss', 'no caption', 'wrong caption', 'at timestep 1']
    head = ['base', 'steps (VAE + UNet)', *captions, 'attention ratio', 'chance', 'PSNR']
    return markdown_table(head, cells).strip() if cells else ''


def _judged(found: dict[str, Any]) -> list[str]:
    return [
        f'{found["training"]["vae_steps"]} + {found["training"]["unet_steps"]}',
        *(f'{found[key]:.4f}' for key in ('loss', 'loss_empty', 'loss_wrong')),
        f'{found["loss_by_time"]["1"]:.4f}',
        *(f'{found[key]:.3f}' for key in ('attention_ratio', 'attention_chance')),
        f'{found["autoencoder_PSNR_RGB"]:.2f}',
    ]


def class_table(rows: Sequence[Row], split: str) -> str:
    """Returns a table of the IoU of every class: mean and deviation over the seeds."""
    names = list(segmentors(rows)[0].first['tests'][split]['IoU'])
    cells = []
    for row in segmentors(rows):
        values = {name: [v for v in row.values(class_iou(split, name)) if not math.isnan(v)] for name in names}
        cells.append([row.system.title, *(mean_text(values[name], 1) if values[name] else '-' for name in names)])
    return markdown_table(['system', *names], cells).strip()
