"""Facts of records: JSON files and manifests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rass_mm.analysis.inspection.facts import Facts, facts, mapping, names, refusal, terms_of, text
from rass_mm.analysis.schemas import Benchmark, Robustness
from rass_mm.degradation.versions import manifest_version
from rass_mm.errors import DataError
from rass_mm.files.manifest import MANIFEST, PARTIAL, read_header, read_manifest
from rass_mm.files.schemas import checked
from rass_mm.files.test_record import TestRecord

AGAIN = 'Copy the file again.'
LARGEST = 2**28
CURVE = 'rass_mm robustness curve'
COPY, OUTPUT = {'seed', 'fingerprint'}, {'format', 'model', 'options'}
"""Keys in the header of the manifest of a degraded copy, and of an output folder."""
Read = Callable[[dict[str, Any], Path], Facts]


def json_record(path: Path) -> Facts:
    """Returns the facts of a record in JSON.

    Raises:
        DataError: the record is damaged.
        ConfigError: the file is another one.
    """
    if path.stat().st_size > LARGEST:
        raise refusal(path, f'a file of more than {LARGEST:,} bytes')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError):
        raise refusal(path, 'not valid JSON') from None
    read = next((read for test, read in RECORDS if isinstance(content, dict) and test(content)), None)
    if read is None:
        raise refusal(path, 'a JSON file of another kind')
    return read(content, path)


def _test(content: dict[str, Any], path: Path) -> Facts:
    checked(content, TestRecord, str(path), AGAIN, DataError)
    return facts(
        'metrics of a test',
        name=content['config'],
        identity=text(content.get('checkpoint_hash')),
        recipe_version=mapping(content, 'recipe_version').get('tested'),
        versions=_texts(content['versions']),
        details={
            **{key: content[key] for key in ('metrics', 'protocol', 'images', 'command')},
            **{key: content.get(key) for key in ('checkpoint', 'seed', 'device', 'dataset', 'test_set')},
        },
    )


def _benchmark(content: dict[str, Any], path: Path) -> Facts:
    checked(content, Benchmark, str(path), AGAIN, DataError)
    speeds = {variant['name']: round(variant['images_per_second'], 4) for variant in content['variants']}
    environment = content['environment']
    return facts(
        'benchmark',
        name=path.name,
        versions=_texts(environment.get('versions') or {}),
        details={'images_per_second': speeds, 'command': content['command'], 'device': environment['device_name']},
    )


def _curve(content: dict[str, Any], path: Path) -> Facts:
    checked(content, Robustness, str(path), AGAIN, DataError)
    data = content['data']
    return facts(
        'robustness curve',
        name=content['name'],
        identity=text(mapping(content, 'checkpoint').get('sha256')),
        classes=names(data.get('classes')),
        recipe_version=content.get('recipe_version'),
        versions=_texts(content['runs'][0].get('versions') or {}) if content['runs'] else {},
        details={'points': len(content['points']), 'config': content.get('config'), 'data': data['type']},
    )


def _demo(content: dict[str, Any], path: Path) -> Facts:
    return facts('settings of a demo', name=path.parent.name, base={'weights': content.get('base')}, details=content)


def _fetched(content: dict[str, Any], path: Path) -> Facts:
    keys = ('source', 'revision', 'licence_address', 'forbids', 'time')
    return facts(
        'record of fetched files',
        name=str(content['entry']),
        licence=text(content.get('licence')),
        details={**{key: content.get(key) for key in keys}, 'files': len(mapping(content, 'files'))},
    )


def _conversion(content: dict[str, Any], path: Path) -> Facts:
    return facts(
        'report of a conversion',
        name=path.name,
        terms=terms_of(content.get('terms')),
        details={'source': content.get('source'), 'converted': content['kind'], 'used': len(content['used'])},
    )


def _base_training(content: dict[str, Any], path: Path) -> Facts:
    return facts(
        'record of the training of a base',
        name=path.parent.name,
        identity=text(content.get('key')),
        classes=names(content.get('classes')),
        terms=terms_of(content.get('terms')),
        details={'losses': content.get('losses')},
    )


def _shares(content: dict[str, Any], path: Path) -> Facts:
    return facts('class shares of images', name=path.name, classes=names(content['classes']), details=_count(content))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | dict)


def _count(content: dict[str, Any]) -> dict[str, int]:
    return {'images': len(mapping(content, 'images'))}


RECORDS: tuple[tuple[Callable[[dict[str, Any]], bool], Read], ...] = (
    (lambda content: content.get('kind') == 'test', _test),
    (lambda content: content.get('kind') == 'benchmark', _benchmark),
    (lambda content: str(content.get('format')).startswith(CURVE), _curve),
    (lambda content: 'procedure' in content and 'base' in content, _demo),
    (lambda content: {'entry', 'files', 'licence'} <= content.keys(), _fetched),
    (lambda content: {'request', 'kind', 'left_out'} <= content.keys() and _is_list(content.get('used')), _conversion),
    (lambda content: {'key', 'recipe', 'losses'} <= content.keys(), _base_training),
    (lambda content: {'classes', 'images'} == content.keys(), _shares),
)
"""Test whether a JSON object is a record -> function that reads it."""


def manifest(path: Path) -> Facts:
    """Returns the facts of the manifest of an output folder or of a degraded copy.

    Raises:
        DataError: the file is damaged.
        ConfigError: the file is another one.
    """
    known = read_header(path).keys()
    named = path.name in (MANIFEST, PARTIAL)
    if not known >= COPY and not known >= OUTPUT and (known or not named):
        raise refusal(path, 'a file of JSON lines of another kind')
    header, lines = read_manifest(path)
    if header.keys() >= COPY:
        details = {'seed': header['seed'], 'images': len(lines)}
        version, identity = manifest_version(header), str(header['fingerprint'])
        return facts(
            'manifest of a degraded copy',
            name=path.parent.name,
            identity=identity,
            recipe_version=version,
            details=details,
        )
    model = mapping(header, 'model')
    found = {key: header.get(key) for key in ('format', 'source', 'options')}
    identity = text(model.get('checkpoint')) or text(model.get('adapter'))
    versions = {'rass_mm': header['version']} if isinstance(header.get('version'), str) else {}
    return facts(
        'manifest of an output folder',
        name=path.parent.name,
        identity=identity,
        base={'weights': model['base']} if isinstance(model.get('base'), str) else None,
        versions=versions,
        details={**found, 'images': len(lines)},
    )


def _texts(values: Any) -> dict[str, str]:
    return {name: value for name, value in values.items() if isinstance(value, str)} if isinstance(values, dict) else {}
