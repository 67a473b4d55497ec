"""Tables of benchmarks in a report: the cost of each variant and the time of each stage."""

from collections.abc import Mapping, Sequence
from typing import Any

from rass_mm.analysis.report.claims import RASS_PAPER, claimed_cost
from rass_mm.analysis.report.parts import cell, grouped, origin
from rass_mm.analysis.report.records import Record
from rass_mm.analysis.report.tables import markdown_table

GIB = 2**30
CLAIMS = {'images/s': 'FPS', 'parameters (M)': 'parameters', 'trained (M)': 'trained'}
"""Maps columns of the table to the keys of the published values in `COST`."""


def benchmarks(records: Sequence[Record]) -> list[str]:
    """Returns the benchmark sections of a report.

    For each measurement protocol (device, image size, number of images and passes), they contain a table of variants, a
    table of stages and the commands.
    """
    parts = []
    for protocol, group in grouped(records, _protocol):
        variants = [
            (_name(record, variant, len(group) > 1), variant, record, number)
            for number, record in enumerate(group, 1)
            for variant in record.content['variants']
        ]
        parts += [f'{protocol}.\n', _overview(variants)]
        parts.append(f'Seconds of each stage, and its share of the pass:\n\n{_stages(variants)}')
        parts.append('\n'.join(f'{n}. {_where(record.content)}' for n, record in enumerate(group, 1)) + '\n')
        if any(claimed_cost(variant['config']) for _, variant, _, _ in variants):
            parts.append(f"Claimed: {RASS_PAPER}, on the authors' card. Not measured here.\n")
    return parts


def _protocol(record: Record) -> str:
    content, where = record.content, record.content['environment']
    size = 'x'.join(str(side) for side in content['size'])
    return (
        f'Speed on {where["device"]} ({where["device_name"]}), {where["threads"]} CPU threads: {content["batch"]} '
        f'random images of {size} (height x width) in a pass, medians of {content["iterations"]} passes'
    )


def _name(record: Record, variant: Mapping[str, Any], several: bool) -> str:
    if record.name is None and not several:
        return cell(variant['name'])
    return cell(f'{record.name or record.path.resolve().parent.name}: {variant["name"]}')


Named = tuple[str, Mapping[str, Any], Record, int]
"""A row name, a variant, the record that contains it, and the number of the command that made the record."""


def _overview(variants: Sequence[Named]) -> str:
    columns = ['images/s', 'seconds', 'times as fast', 'peak (GiB)', 'parameters (M)', 'trained (M)']
    with_claims = [c for c in columns if any(CLAIMS.get(c) in claimed_cost(v['config']) for _, v, _, _ in variants)]
    header = [name for c in columns for name in ([c, f'{c} claimed'] if c in with_claims else [c])]
    rows = []
    for name, variant, record, number in variants:
        measured, claims = _measured(record.content, variant), claimed_cost(variant['config'])
        cells = [
            text
            for column, value in zip(columns, measured, strict=True)
            for text in ([value, claims.get(CLAIMS[column], '')] if column in with_claims else [value])
        ]
        rows.append([name, *cells, str(record.content.get('seed', '')), str(number)])
    return markdown_table(['variant', *header, 'seed', 'command'], rows)


def _measured(content: Mapping[str, Any], variant: Mapping[str, Any]) -> list[str]:
    ratios = {ratio['variant']: ratio['median'] for ratio in content.get('ratios', [])}
    peak, counts = variant['memory']['peak_bytes'], variant['parameters']
    return [
        f'{variant["images_per_second"]:.4g}',
        f'{variant["seconds"]["median"]:.4g}',
        f'{ratios[variant["name"]]:.3g}' if variant['name'] in ratios else 'reference',
        '' if peak is None else f'{peak / GIB:.2f}',
        *(f'{counts[key] / 1e6:.2f}' if counts else '' for key in ('all', 'trained')),
    ]


def _stages(variants: Sequence[Named]) -> str:
    """Returns a table with a row per variant and a column per stage."""
    names = list(dict.fromkeys(stage for _, variant, _, _ in variants for stage in variant['stages']))
    names = [*(name for name in names if name != 'other'), *(name for name in names if name == 'other')]
    rows = [[name, *(_stage(variant['stages'].get(stage)) for stage in names)] for name, variant, _, _ in variants]
    return markdown_table(['variant', *names], rows)


def _stage(stage: Mapping[str, Any] | None) -> str:
    return '' if stage is None else f'{stage["seconds"]:.4g} ({stage["share"]:.0%})'


def _where(content: Mapping[str, Any]) -> str:
    return origin({**content, 'versions': content['environment'].get('versions')})
