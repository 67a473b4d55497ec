"""Tables of robustness tests in a report: mIoU at each severity of a degradation."""

from collections.abc import Sequence
from pathlib import Path

from rass_mm.analysis.report.parts import cell, grouped, number, origin
from rass_mm.analysis.report.records import Record
from rass_mm.analysis.report.tables import markdown_table
from rass_mm.metrics.iou import MEAN_OVER


def robustness(records: Sequence[Record]) -> list[str]:
    """Returns the robustness sections of a report: for each protocol, a table per degradation and the commands."""
    parts = []
    for (protocol, _), group in grouped(records, lambda r: (_robustness_protocol(r), r.content['data'].get('sha256'))):
        kinds = dict.fromkeys(p['kind'] for r in group for p in r.content['points'] if p['severity'] is not None)
        parts.append(f'{protocol}.\n')
        parts += [f'{kind}, mIoU by severity:\n\n{_severity_table(group, kind)}' for kind in kinds]
        if not kinds:
            parts.append(_severity_table(group, None))
        runs = [run for record in group for run in record.content['runs']]
        parts.append('\n'.join(f'{number}. {origin(run)}' for number, run in enumerate(runs, 1)) + '\n')
    return parts


def _robustness_protocol(record: Record) -> str:
    data, content = record.content['data'], record.content
    rule = content.get('settings', {}).get('evaluator', {}).get('mean_over', 'all')
    mean = '' if rule == 'all' else f', mean over {MEAN_OVER[rule]}'
    return (
        f'mIoU (%) over all pixels of {data["images"]} images of {Path(data["root"]).name}/{data["img_path"]} '
        f'({data["type"]}){mean}, one degradation at a time, draws of seed {content["seed"]}, recipe version '
        f'{content.get("recipe_version", 1)}'  # the first version was not recorded
    )


def _severity_table(records: Sequence[Record], kind: str | None) -> str:
    """Returns a table with a row per model and columns for clean images and the severities, from mild to hard."""
    tables = [{(p['kind'], p['severity']): p['mIoU'] for p in record.content['points']} for record in records]
    keys = [('clean', None), *sorted({key for table in tables for key in table if key[0] == kind})]
    header = ['system', *('clean' if severity is None else f'{severity:g}' for _, severity in keys), 'command']
    rows, first = [], 1
    for record, table in zip(records, tables, strict=True):
        runs = len(record.content['runs'])
        numbers = ', '.join(str(number) for number in range(first, first + runs))
        cells = (number('mIoU', table.get(key)) for key in keys)
        rows.append([cell(record.name or record.content['name']), *cells, numbers])
        first += runs
    return markdown_table(header, rows)
