"""Facts of folders: packs, exported models, bases, output folders and demos."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rass_mm.analysis.inspection.facts import Facts, facts, mapping, names, refusal, terms_of
from rass_mm.analysis.inspection.records import json_record, manifest
from rass_mm.errors import CheckpointError
from rass_mm.export.metadata import AGAIN, METADATA, Checked, check_files
from rass_mm.files.hashing import file_sha256
from rass_mm.files.manifest import MANIFEST, PARTIAL
from rass_mm.files.packs.reading import open_pack
from rass_mm.files.packs.schema import PACK
from rass_mm.files.schemas import read_json
from rass_mm_cli.licences import NOT_STATED

BASE, DEMO = 'unet/config.json', 'demo.json'
LISTED = 3


def folder(path: Path) -> Facts:
    """Returns the facts of a folder.

    Raises:
        RassError: the content of the folder is damaged.
        ConfigError: it is another folder.
    """
    read = next((read for name, read in CONTENTS.items() if os.path.lexists(path / name)), None)
    if read is not None:
        return read(path)
    inside = sorted(file.name for file in path.iterdir() if not file.name.startswith('.'))[:LISTED]
    content = f'with {", ".join(inside)}' if inside else 'that is empty'
    raise refusal(path, f'a folder {content}')


def _pack(path: Path) -> Facts:
    content = open_pack(path).manifest
    base = content['base']
    return facts(
        f'pack of a {content["kind"]}',
        name=content['name'],
        model=content['model'],
        identity=file_sha256(path / PACK)[:16],
        rank=content.get('rank'),
        classes=content['classes'] or None,
        training_data=content['training']['data'],
        base=None if base is None else dict(base),
        recipe_version=content['training']['recipe_version'],
        licence=content['licence'],
        terms=content['terms'],
        versions=content['versions'],
        details={
            **{'files': len(content['files']), 'bytes': sum(file['bytes'] for file in content['files'].values())},
            **{'warnings': content['warnings'], 'provenance': _short(content['provenance'])},
        },
    )


def _short(provenance: dict[str, Any]) -> dict[str, Any]:
    """Returns the provenance without what other facts contain."""
    record = mapping(provenance, 'record')
    found = {key: value for key, value in provenance.items() if key != 'record'}
    return {**found, **{key: record[key] for key in ('merged_adapters', 'source') if key in record}}


def _export(path: Path) -> Facts:
    content = read_json(path / METADATA, Checked, AGAIN, CheckpointError)
    check_files(path, content)
    provenance, classes = content['provenance'], content.get('classes') or {}
    return facts(
        f'exported {content["kind"]}',
        name=path.name,
        model=content['model'],
        identity=file_sha256(path / METADATA)[:16],
        rank=rank if isinstance(rank := mapping(provenance, 'adapter').get('rank'), int) else None,
        classes=names(classes.get('names')) or names(mapping(provenance, 'adapter', 'recipe').get('classes')),
        base=mapping(provenance, 'base') or None,
        terms=terms_of(provenance.get('terms')),
        licence=str(provenance.get('licence') or NOT_STATED),
        versions=content['versions'],
        details={key: content[key] for key in ('format', 'dtype', 'input', 'output', 'parity')},
    )


def _base(path: Path) -> Facts:
    # Only bases need torch, for the hash of their weights.
    return importlib.import_module('rass_mm.analysis.inspection.bases').base(path)


CONTENTS: dict[str, Callable[[Path], Facts]] = {
    PACK: _pack,
    METADATA: _export,
    BASE: _base,
    MANIFEST: lambda path: manifest(path / MANIFEST),
    PARTIAL: lambda path: manifest(path / PARTIAL),
    DEMO: lambda path: json_record(path / DEMO),
}
"""File in a folder -> function that reads the folder."""
