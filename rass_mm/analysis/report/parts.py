"""What all tables of a report share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rass_mm.analysis.report.records import Record

DECIMALS = {'mIoU': 2, 'aAcc': 2, 'mAcc': 2, 'PSNR': 2, 'MUSIQ': 2, 'FID': 2, 'classes': 0}
"""Of metrics that are counts or numbers about 1 to 100; all others get four."""


def grouped(records: Sequence[Record], key: Callable[[Record], str]) -> Iterator[tuple[str, list[Record]]]:
    """Records that have the same key, in order of first appearance."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    yield from groups.items()


def number(metric: str, value: float | None) -> str:
    """A metric's value as text; empty for None."""
    return '' if value is None else f'{value:.{DECIMALS.get(metric, 4)}f}'


def cell(text: str) -> str:
    """Text that stays inside its cell."""
    return text.replace('|', '\\|')


def origin(content: Mapping[str, Any]) -> str:
    """The command of a record, where it ran and with which versions."""
    versions = content.get('versions') or {}
    known = [f'{name} {versions[name]}' for name in ('rass_mm', 'torch') if name in versions]
    return ', '.join([f'`{content["command"]}`', *filter(None, [content.get('device')]), *known])
