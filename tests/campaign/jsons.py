"""JSON files of every kind that a command reads, damaged and with wrong types."""

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from campaign.cases import Case
from campaign.doors import BASED, DATA, RASS
from campaign.faults import BROKEN_JSON, DAMAGES, WRONG, damage_file, write_json, wrong_values
from campaign.outputs import AGAIN, MANIFEST, copied, output_cases
from safetensors.torch import load_file, save_file

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
ACCEPTED = {
    ('curve', 'points.0.severity'): ('absent',),
    ('metrics', 'data'): ('null',),
    ('metrics', 'metrics.mIoU'): ('absent',),
}
"""Other values that are valid."""
NAN = float('nan')
VALUES: dict[str, dict[str, list[Any]]] = {
    'metrics': {'metrics': [{}], 'metrics.mIoU': ['nan'], 'images': [-1, 1.5]},
    'benchmark': {
        **{key: [0, -3, 1.5, NAN] for key in ('iterations', 'batch')},
        'size': [[], [64], [64, 64, 64], ['x', 64], [0, 64], [64.5, 64]],
        'environment': [{}, {'device': 7}],
        'variants': [[], [{}]],
        'variants.0.seconds': [{}, {'median': 'x'}, {'median': NAN}, {'median': -1}],
    },
    'curve': {
        'checkpoint': [{}, {'name': 'x'}, {'name': 7, 'sha256': 'x'}],
        'data': [{}],
        'data.classes': [[], [7]],
        'runs': [[], [1], ['x'], [{}]],
        'points': [['x'], [{}]],
        'points.1.kind': ['fog', ''],
        **{f'points.{index}.mIoU': [NAN, float('inf'), -1, 101] for index in (0, 1)},
        'points.1.severity': [NAN, -1, 2],
        'points.1.run': [-1, 0.5],
    },
    'curve in a report': {'data': [{}], 'runs': [[1]], 'points.1.mIoU': [NAN], 'points.1.severity': ['x']},
}
"""Values of the right type that are wrong, by kind of file and key."""


def _write(content: bytes, folder: Path, kit: Path) -> None:
    (folder / 'r').mkdir()
    (folder / 'r' / 'x.json').write_bytes(content)


def _change(change: Callable[[dict], object], file: str, folder: Path, kit: Path) -> None:
    (folder / 'r').mkdir()
    write_json(folder / 'r' / 'x.json', change(json.loads((kit / file).read_text())))


def _pick(key: str, wrong: str, content: dict) -> dict:
    return dict(wrong_values(content, [key]))[f'{key} {wrong}']


def _put(key: str, value: Any, content: dict) -> dict:
    *outer, last = (int(part) if part.isdigit() else part for part in key.split('.'))
    inner: Any = content
    for part in outer:
        inner = inner[part]
    inner[last] = value
    return content


def _records() -> Iterator[Case]:
    for kind, (file, door, keys) in SAMPLES.items():
        prepare = functools.partial(_change, lambda found: found, file)
        yield Case(f'jsons/{kind}/valid', door, ok=True, prepare=prepare)
        for damage, data in BROKEN_JSON.items():
            prepare = functools.partial(_write, data)
            yield Case(f'jsons/{kind}/{damage}', door, named=(r'x\.json',), prepare=prepare)
        for key, valid in (pair.split(':') for pair in keys.split()):
            impossible = {'absent'} if key.split('.')[-1].isdigit() else set()  # an entry of a list
            for wrong in sorted({*WRONG, 'absent'} - {valid, *ACCEPTED.get((kind, key), ())} - impossible):
                prepare = functools.partial(_change, functools.partial(_pick, key, wrong), file)
                last = key.split('.')[-1]
                named = (r'x\.json', '' if last.isdigit() else last)
                yield Case(f'jsons/{kind}/{key} {wrong}', door, named=named, prepare=prepare)
        for key, values in VALUES[kind].items():
            for value in values:
                prepare = functools.partial(_change, functools.partial(_put, key, value), file)
                named = (r'x\.json', key.split('.')[-1])
                yield Case(f'jsons/{kind}/{key} is {json.dumps(value)}', door, named=named, prepare=prepare)


def _overwritten() -> Iterator[Case]:
    """Yields reports that would replace the record that they are made of."""
    for kind in ('metrics', 'benchmark', 'curve'):
        prepare = functools.partial(_change, lambda found: found, f'{kind}.json')
        for place in ('r/x.json', 'r'):
            name, command = (
                f'jsons/{kind} as its own report/{place.replace("/", " ")}',
                f'report {place} --out r/x.json',
            )
            yield Case(name, command, named=('--out', r'x\.json'), prepare=prepare, check=_still_json)


def _still_json(folder: Path) -> str | None:
    try:
        json.loads((folder / 'r' / 'x.json').read_text())
    except ValueError:
        return 'the record was replaced'
    return None


def _versions(value: Any, folder: Path, kit: Path) -> None:
    copied('make-lq', folder, kit)
    path = folder / MANIFEST
    first, rest = path.read_text().split('\n', 1)
    header = json.loads(first) | {'versions': value}
    if value is ...:
        del header['versions']
    path.write_text(json.dumps(header) + '\n' + rest)


def _manifests() -> Iterator[Case]:
    """Yields manifests with other versions, which earlier releases did not write and a run does not need."""
    for value in (..., None, 7, 'x', [1], {}, {'rass_mm': 7}):
        shown = 'absent' if value is ... else json.dumps(value)
        ok = value is ... or value in ({}, {'rass_mm': 7})
        prepare = functools.partial(_versions, value)
        named = () if ok else ('manifest', 'versions')
        yield Case(f'jsons/manifest header versions {shown}/make-lq', AGAIN['make-lq'], ok, named, prepare)


def _tokens(change: Callable[[Path], object], folder: Path, kit: Path) -> None:
    """Computes the class tokens of the config as an earlier run did, and damages their cache."""
    from rass_mm.datasets.scenes import ScenesDataset
    from rass_mm.diffusion.base import read_base
    from rass_mm.diffusion.prompts import ClassTokens

    ClassTokens(read_base(kit / 'base'), list(ScenesDataset.METAINFO['classes']), cache=folder / 'cache')
    change(next((folder / 'cache' / 'class_tokens').glob('*.safetensors')))


def _stored(key: str, change: Callable, path: Path) -> None:
    tokens = change(load_file(path)['tokens']).contiguous()
    path.unlink()
    save_file({key: tokens}, path)


def _replaced_by_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text('mine')


def _replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _caches() -> Iterator[Case]:
    changes: dict[str, Callable[[Path], object]] = {
        name: functools.partial(damage_file, damage=DAMAGES[name])
        for name in ('empty', 'first half', 'without its last byte', 'web page', 'zeros')
    }
    changes |= {
        'unchanged': lambda path: None,
        'another key': functools.partial(_stored, 'x', lambda tokens: tokens),
        'fewer tokens': functools.partial(_stored, 'tokens', lambda tokens: tokens[:-1]),
        'narrower tokens': functools.partial(_stored, 'tokens', lambda tokens: tokens[:, :5]),
        'nan': functools.partial(_stored, 'tokens', lambda tokens: tokens * NAN),
        'a folder': _replaced_by_folder,
        'the cache is a file': _replaced_by_file,
    }
    command = f'test {RASS} $FX/rass.pth --work-dir w --cfg-options {DATA} {BASED}'
    cache = {'RASS_MM_CACHE': 'cache'}
    for name, change in changes.items():
        prepare = functools.partial(_tokens, change)
        check = None if name == 'unchanged' else _said  # which shows that the test reads this file
        yield Case(f'jsons/cached tokens {name}/test', command, True, (), prepare, check, environment=cache)


def _said(folder: Path) -> str | None:
    said = 'class_tokens' in folder.with_suffix('.log').read_text(errors='replace')
    return None if said else 'nothing is said of the cached tokens'


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    for made in (_records, _overwritten, _manifests, _caches):
        yield from made()
    yield from output_cases()
