"""Markdown report of recorded tests, benchmarks and robustness tests, with tables and commands for each protocol.

Published values are in separate columns marked `claimed`; all other columns contain measured values.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rass_mm.analysis.report.benchmarks import benchmarks
from rass_mm.analysis.report.claims import claimed
from rass_mm.analysis.report.parts import cell, grouped, number, origin
from rass_mm.analysis.report.records import Record
from rass_mm.analysis.report.robustness import robustness
from rass_mm.analysis.report.tables import markdown_table
from rass_mm.protocol import with_rule

SEGMENTATION = ('mIoU', 'aAcc', 'mAcc')
INPUT = 'input_'
"""Prefix of the metrics that score the degraded input image."""


@dataclass
class Row:
    """Row of a table: its name, the measured and published values by metric, and the record of the measured values."""

    name: str
    values: Mapping[str, float]
    claims: Mapping[str, str]
    record: Record | None = None


def report(records: Sequence[Record], title: str = 'Results') -> str:
    """Returns the report as Markdown: tests, then robustness tests, then benchmarks, in the order of the records."""
    parts = [f'# {title}\n']
    for kind, section in {'test': tests, 'robustness': robustness, 'benchmark': benchmarks}.items():
        parts += section([record for record in records if record.kind == kind])
    return '\n'.join(parts)


def tests(records: Sequence[Record]) -> list[str]:
    """Returns the test sections of a report: for each protocol, a table, the commands and the cited papers."""
    return [
        section
        for (protocol, _), group in grouped(records, _protocol)
        for section in [f'{protocol}.\n', _test_table(group), *_origins(group)]
    ]


def _protocol(record: Record) -> tuple[str, str | None]:
    """Returns the protocol line, and the hash of the test set, which distinguishes sets with equal protocol lines."""
    # Older protocol lines do not name the classes in the mean; they follow mmseg's rule.
    return with_rule(record.content['protocol']), record.content.get('test_set')


def _test_table(records: Sequence[Record]) -> str:
    rows = _rows(records)
    header, aligned = ['system'], []
    for metric in _metrics(rows):
        header.append(metric)
        aligned.append(lambda row, metric=metric: number(metric, row.values.get(metric)))
        if any(metric in row.claims for row in rows):
            header.append(f'{metric} claimed')
            aligned.append(lambda row, metric=metric: row.claims.get(metric, ''))
    cells = [[cell(row.name), *(column(row) for column in aligned), *_reference(row, records)] for row in rows]
    return markdown_table([*header, 'seed', 'command'], cells)


def _rows(records: Sequence[Record]) -> list[Row]:
    """Returns a row per record, preceded by a row for each distinct set of scores of the degraded input."""
    inputs: list[Mapping[str, float]] = []
    rows = []
    for record, name in zip(records, _names(records), strict=True):
        metrics = record.content['metrics']
        of_input = {key[len(INPUT) :]: value for key, value in metrics.items() if key.startswith(INPUT)}
        if of_input and not any(_agree(of_input, other) for other in inputs):
            inputs.append(of_input)
        values = {key: value for key, value in metrics.items() if not key.startswith(INPUT)}
        rows.append(Row(name, values, claimed(record.content)[0], record))
    return [*(Row('input', scores, {}) for scores in inputs), *rows]


def _agree(some: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Returns whether the metrics that both dicts contain are equal up to rounding, as for the same input images."""
    return all(abs(some[key] - others[key]) <= 1e-4 for key in some.keys() & others.keys())


def _names(records: Sequence[Record]) -> list[str]:
    """Returns the row names, with the folder of the record appended to names that are not unique."""
    names = [record.name or _default_name(record) for record in records]
    count = Counter(names)
    return [
        name if count[name] == 1 else f'{name} ({record.path.resolve().parent.name})'
        for name, record in zip(names, records, strict=True)
    ]


def _default_name(record: Record) -> str:
    content = record.content
    parts = [Path(content['config']).stem]
    prefix = (content.get('data') or {}).get('img', 'lq')
    parts += [prefix] if prefix != 'lq' else []  # images restored by another system
    parts += [content['mode']] if content.get('mode') in ('ceiling', 'input') else []
    return ', '.join([*parts, *(['TTA'] if content.get('tta') else [])])


def _metrics(rows: Sequence[Row]) -> list[str]:
    """Returns all metrics of the rows: the segmentation metrics in a fixed order, then the others in recorded order."""
    present = dict.fromkeys(metric for row in rows for metric in row.values)
    usual = [metric for metric in SEGMENTATION if metric in present]
    return [*usual, *(metric for metric in present if metric not in usual)]


def _reference(row: Row, records: Sequence[Record]) -> tuple[str, str]:
    """Returns the seed of a row and the number of its command below the table, or empty strings for the input row."""
    if row.record is None:
        return '', ''
    seed = row.record.content.get('seed')
    return '' if seed is None else str(seed), str([*records].index(row.record) + 1)


def _origins(records: Sequence[Record]) -> list[str]:
    """Returns the numbered commands with devices and versions, and the sources of the published values."""
    lines = [f'{number}. {origin(record.content)}' for number, record in enumerate(records, 1)]
    sources = dict.fromkeys(source for record in records if (source := claimed(record.content)[1]))
    claims = [f'Claimed: {"; ".join(sources)}. Not measured here.\n'] if sources else []
    return ['\n'.join(lines) + '\n', *claims]
