"""Facts of checkpoints and adapters, from their headers only. torch is not imported."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rass_mm.analysis.inspection.facts import (
    Facts,
    facts,
    licence_of,
    mapping,
    names,
    recipe_of,
    refusal,
    terms_of,
    text,
)
from rass_mm.errors import CheckpointError
from rass_mm.files.adapter_header import HEADER, adapter_header
from rass_mm.files.hashing import content_hash
from rass_mm.files.plain_pickle import read_plain
from rass_mm.files.tensor_headers import TensorHeader, read_tensor_header
from rass_mm_cli.literals import NotLiteralError, assigned_literals

RECORD = '_extra_state'
CHARACTERS = 2**20


def checkpoint(path: Path) -> Facts:
    """Returns the facts of a checkpoint that mmengine's runner wrote.

    Raises:
        CheckpointError: the file is damaged, or contains objects that could run code.
        ConfigError: the file is another one.
    """
    content, records = read_plain(path)
    meta, state = mapping(content, 'meta'), mapping(content, 'state_dict')
    if not state or not meta:
        raise refusal(path, 'a file of PyTorch without the entries meta and state_dict')
    config = _config(content)
    record = _parsed(records.text_of(state[RECORD]), path) if RECORD in state else {}
    known = mapping(meta, 'dataset_meta')
    restores = str(mapping(config, 'model').get('type')).endswith('Restorer')
    return facts(
        'checkpoint of a restorer' if restores else 'checkpoint of a segmentor',
        name=path.name,
        **_model(config, record),
        identity=content_hash(path),
        classes=names(known.get('classes')) or names(record.get('classes')),
        recipe_version=recipe_of(config),
        terms=terms_of(meta.get('terms'), config),
        licence=licence_of(meta.get('licence')),
        versions=_versions(record) or _written_by(meta),
        details=_details(meta, record, len(state)),
    )


def _config(content: Any) -> dict[str, Any]:
    cfg = mapping(content, 'message_hub', 'runtime_info').get('cfg') or mapping(content, 'meta').get('cfg')
    if not isinstance(cfg, str) or len(cfg) > CHARACTERS:
        return {}
    with suppress(NotLiteralError):
        return assigned_literals(cfg)
    return {}


def _model(config: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    model = mapping(config, 'model')
    adapters = (mapping(model, 'backbone', 'adapter'), mapping(model, 'adapter'))
    rank = next((adapter['rank'] for adapter in adapters if isinstance(adapter.get('rank'), int)), None)
    return {'model': text(model.get('type')), 'rank': rank, 'base': mapping(record, 'base') or None}


def _parsed(data: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise CheckpointError(f'{path}: its record of provenance is not JSON.') from None
    return found if isinstance(found, dict) else {}


def _versions(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in mapping(record, 'versions').items() if isinstance(value, str)}


def _written_by(meta: Mapping[str, Any]) -> dict[str, str]:
    recorded = mapping(meta, 'versions') or {'mmengine': meta.get('mmengine_version')}
    return {name: value for name, value in recorded.items() if isinstance(value, str)}


def _details(meta: Mapping[str, Any], record: Mapping[str, Any], tensors: int) -> dict[str, Any]:
    found = {'tensors': tensors, 'updates': meta.get('iter'), 'seed': meta.get('seed'), 'time': text(meta.get('time'))}
    found |= {'merged_adapters': record.get('merged_adapters') or None, 'experiment': text(meta.get('experiment_name'))}
    return {key: value for key, value in found.items() if isinstance(value, int | str | list)}


def tensors(path: Path) -> Facts:
    """Returns the facts of an adapter or of a converted checkpoint.

    Raises:
        CheckpointError, AdapterError: the file is damaged.
        ConfigError: the file is another one.
    """
    header = read_tensor_header(path)
    if HEADER in header.metadata:
        return _adapter(header)
    if RECORD in header.tensors:
        return _converted(header)
    raise refusal(path, 'a safetensors file without a header or a record of rass_mm')


def _adapter(header: TensorHeader) -> Facts:
    content = adapter_header(header.path)
    recipe = content.get('recipe') or {}
    used = {key: recipe[key] for key in ('form', 'timestep', 'prompt') if key in recipe}
    return facts(
        'adapter of a restorer' if recipe else 'adapter',
        name=content['name'],
        model=f'one-step restorer, form {recipe["form"]}' if recipe else None,
        identity=content['hash'],
        rank=content['rank'],
        classes=names(recipe.get('classes')),
        base=dict(content['base']),
        recipe_version=content.get('recipe_version') if isinstance(content.get('recipe_version'), int) else None,
        terms=terms_of(content.get('terms')),
        licence=licence_of(content.get('licence')),
        versions=_versions(content),
        details={**used, 'alpha': content['alpha'], 'adapts_vae': 'vae' in content, 'tensors': len(header.tensors)},
    )


def _converted(header: TensorHeader) -> Facts:
    record = _parsed(header.text_of(RECORD), header.path)
    return facts(
        'converted checkpoint of a segmentor',
        name=header.path.name,
        model='RASS',
        identity=content_hash(header.path),
        classes=names(record.get('classes')),
        base=mapping(record, 'base') or None,
        terms=terms_of(record.get('terms')),
        licence=licence_of(record.get('licence')),
        versions=_versions(record),
        details={'merged_adapters': record.get('merged_adapters') or [], 'tensors': len(header.tensors)},
    )
