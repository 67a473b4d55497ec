"""Builds the tables of the report from the records of a data set."""

import math
from collections.abc import Sequence
from typing import Any

from experiments.commands import SPLITS
from experiments.questions import Answer, questions_of
from experiments.results import FAMILIES, GROUPS, NOT_RECORDED, NOT_RUN, Row, class_iou, mean_text, miou
from experiments.store import read_bases
from experiments.systems import BOUND, CAUSE, System, systems_of
from rass_mm.analysis.report.tables import markdown_table

COSTS = ('trained (M)', 'TFLOP', 'with SCR', 'with SCR and base')


def segmentors(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of all segmentors."""
    return [row for row in rows if not row.system.restores]


def score_table(group: str, rows: Sequence[Row]) -> str:
    """Returns a table of every planned segmentor: mIoU, seeds, steps, and bases and costs unless never recorded."""
    further = [] if group in FAMILIES['first'] else ['base seeds', *COSTS]
    head = ['system', *SPLITS, 'seeds', 'steps', *further]
    planned = [(system, row) for system, row in _planned(group, rows) if not system.restores]
    cells = [[_marked(system), *_scores(row), *_costs(row, rows)] for system, row in planned]
    return markdown_table(head, [line[: len(head)] for line in cells]).strip()


def _planned(group: str, rows: Sequence[Row]) -> list[tuple[System, Row | None]]:
    known = {row.system.name: row for row in rows}
    return [(system, known.get(system.name)) for system in systems_of(GROUPS[group][0])]


def _marked(system: System) -> str:
    return system.title + {BOUND: ' (upper bound)', CAUSE: ' (cause)'}.get(system.group, '')


def _scores(row: Row | None) -> list[str]:
    if row is None:
        return [*[NOT_RUN] * len(SPLITS), '0', '-']
    means = [mean_text(row.values(miou(split))) for split in SPLITS]
    return [*means, str(len(row.by_seed)), str(row.first['steps'])]


def _costs(row: Row | None, rows: Sequence[Row]) -> list[str]:
    """Returns the number of bases of different seeds, the trained parameters and the training cost in TFLOP.

    The cost is that of the system itself, with the systems whose results it uses, and with these and the base.
    """
    if row is None:
        return ['-'] * (1 + len(COSTS))
    bases = {record['base_seed'] for record in row.by_seed.values() if record.get('base')}
    record, known = row.first, {other.system.name: other for other in rows}
    start = known.get(row.system.starts_from)
    parts = [
        record.get('training_tflop'),
        record.get('restorer_tflop'),
        (start.first.get('training_tflop') if start else None) if row.system.starts_from else 0.0,
        record.get('base_tflop'),
    ]
    sums = [parts[:1], parts[:3], parts]
    texts = [NOT_RECORDED if None in part else f'{sum(part):.1f}' for part in sums]
    trained = record.get('trained_parameters')
    return [str(len(bases)), NOT_RECORDED if trained is None else f'{trained / 1e6:.2f}', *texts]


def question_table(group: str, answered: Sequence[Answer]) -> str:
    """Returns a table of all planned questions.

    Args:
        group: a data set.
        answered: the answers to the questions that were run, corrected with their whole family.
    """
    found = {answer.question: answer for answer in answered}
    cells = [[q.text, *(_answered(found[q]) if q in found else [*'-----', NOT_RUN])] for q in questions_of(group)]
    head = ['question (degraded images, unless said)', 'difference by seed', 'mean', '95 % interval', 'signs']
    return markdown_table([*head, 'corrected p', 'verdict'], cells).strip()


def _answered(answer: Answer) -> list[str]:
    comparison = answer.comparison
    differences = ', '.join(f'{difference:+.2f}' for difference in comparison.differences)
    interval = '[{:+.2f}, {:+.2f}]'.format(*comparison.interval) if comparison.interval else '-'
    value = '-' if answer.corrected is None else f'{answer.corrected:.3f}'
    return [differences, mean_text(comparison.differences), interval, comparison.signs, value, answer.verdict]


def restorer_table(group: str, rows: Sequence[Row]) -> str:
    """Returns a table of PSNR and SSIM (input, restored, ceiling) and attention of every planned restorer."""
    restorers = [(system, row) for system, row in _planned(group, rows) if system.restores]
    tests = [row.first['tests'] for _, row in restorers if row]
    cells = [[system.title, *_restored(row)] for system, row in restorers]
    if tests:
        restored, ceiling = tests[0]['restore'], tests[-1]['ceiling']
        before = ['degraded input', f'{restored["input_PSNR"]:.2f}', f'{restored["input_SSIM"]:.3f}', *'---']
        behind = ['ceiling: clean through the autoencoder', f'{ceiling["PSNR"]:.2f}', f'{ceiling["SSIM"]:.3f}', *'---']
        cells = [before, *cells, behind]
    head = ['images', 'PSNR (dB)', 'SSIM', 'attention ratio', 'chance', 'steps']
    return markdown_table(head, cells).strip()


def _restored(row: Row | None) -> list[str]:
    if row is None:
        return [NOT_RUN, *'----']
    texts = [
        mean_text(row.values(lambda record, key=key: record['tests']['restore'][key]), digits)
        for key, digits in (('PSNR', 2), ('SSIM', 3), ('attention_ratio', 3), ('attention_chance', 3))
    ]
    return [*texts, str(row.first['steps'])]


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
