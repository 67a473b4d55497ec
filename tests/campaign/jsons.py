"""JSON files of every kind that a command reads, damaged and with wrong types."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from campaign.cases import Case
from campaign.faults import BROKEN_JSON, WRONG, write_json, wrong_values
from campaign.outputs import output_cases

SAMPLES = {
    'metrics': (
        'metrics.json',
        'report r/x.json',
        'config:text data:mapping versions:mapping protocol:text metrics:mapping metrics.mIoU:number images:number '
        'kind:text',
    ),
    'benchmark': (
        'benchmark.json',
        'report r/x.json',
        'iterations:number size:list batch:number environment:mapping variants:list variants.0:mapping '
        'variants.0.name:text',
    ),
    'curve': (
        'curve.json',
        'robustness --plot r/x.json --out o',
        'name:text config:text checkpoint:mapping seed:number data:mapping data.classes:list data.images:number '
        'settings:mapping runs:list points:list points.0.kind:text points.0.severity:null points.0.mIoU:number '
        'points.1.severity:number points.1.run:number',
    ),
    'curve in a report': ('curve.json', 'report r/x.json', 'name:text points:list data:mapping runs:list'),
}
"""Files of the kit, the command that reads them, and the keys to damage with their types."""
ACCEPTED = {'points.0.severity': ('absent',), 'data': ('null',), 'metrics.mIoU': ('absent',)}
"""Other values that are valid."""


def _write(content: bytes, folder: Path, kit: Path) -> None:
    (folder / 'r').mkdir()
    (folder / 'r' / 'x.json').write_bytes(content)


def _change(change: Callable[[dict], object], file: str, folder: Path, kit: Path) -> None:
    (folder / 'r').mkdir()
    write_json(folder / 'r' / 'x.json', change(json.loads((kit / file).read_text())))


def _pick(key: str, wrong: str, content: dict) -> dict:
    return dict(wrong_values(content, [key]))[f'{key} {wrong}']


def _records() -> Iterator[Case]:
    for kind, (file, door, keys) in SAMPLES.items():
        prepare = functools.partial(_change, lambda found: found, file)
        yield Case(f'jsons/{kind}/valid', door, ok=True, prepare=prepare)
        for damage, data in BROKEN_JSON.items():
            prepare = functools.partial(_write, data)
            yield Case(f'jsons/{kind}/{damage}', door, named=(r'x\.json',), prepare=prepare)
        for key, valid in (pair.split(':') for pair in keys.split()):
            impossible = {'absent'} if key.split('.')[-1].isdigit() else set()  # an entry of a list
            for wrong in sorted({*WRONG, 'absent'} - {valid, *ACCEPTED.get(key, ())} - impossible):
                prepare = functools.partial(_change, functools.partial(_pick, key, wrong), file)
                last = key.split('.')[-1]
                named = (r'x\.json', '' if last.isdigit() else last)
                yield Case(f'jsons/{kind}/{key} {wrong}', door, named=named, prepare=prepare)


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    yield from _records()
    yield from output_cases()
