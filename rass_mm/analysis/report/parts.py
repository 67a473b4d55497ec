"""Helpers shared by all tables of a report."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rass_mm.analysis.report.records import Record

Key = TypeVar('Key', bound=Hashable)
DECIMALS = {'mIoU': 2, 'aAcc': 2, 'mAcc': 2, 'PSNR': 2, 'MUSIQ': 2, 'FID': 2, 'classes': 0}
"""Number of decimals by metric. All other metrics have four decimals."""


def grouped(records: Sequence[Record], key: Callable[[Record], Key]) -> Iterator[tuple[Key, list[Record]]]:
    """Groups records by `key(record)`. Yields each key with its records, in order of first appearance."""
    groups: dict[Key, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    yield from groups.items()


def number(metric: str, value: float | None) -> str:
    """Formats the value of a metric. For None, returns an empty string."""
    return '' if value is None else f'{value:.{DECIMALS.get(metric, 4)}f}'


def cell(text: str) -> str:
    """Escapes text for a cell of a Markdown table."""
    return text.replace('|', '\\|')


def origin(content: Mapping[str, Any]) -> str:
    """Formats the command, device and versions of a record."""
    versions = content.get('versions') or {}
    known = [f'{name} {versions[name]}' for name in ('rass_mm', 'torch') if name in versions]
    return ', '.join([f'`{content["command"]}`', *filter(None, [content.get('device')]), *known])
