"""Facts that are reported of a file or folder."""

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.errors import ConfigError, RassError
from rass_mm.export.metadata import METADATA
from rass_mm.files.packs.schema import PACK, Term
from rass_mm.files.schemas import checked
from rass_mm_cli.licences import NOT_STATED, training_terms

Facts = dict[str, Any]
FIELDS = (
    *('kind', 'name', 'model', 'identity', 'rank', 'classes', 'training_data', 'base', 'recipe_version'),
    *('licence', 'terms', 'versions', 'details'),
)
"""Keys of all facts. A value that is not known is None, and a licence that is not known is 'not stated'."""
WHOLE = PACK, METADATA
"""Files that describe all others in their folder."""
READ = 'checkpoints, adapters, bases, packs, exported models, manifests and records of rass_mm'


def facts(kind: str, **known: Any) -> Facts:
    """Returns facts with all keys of `FIELDS`."""
    unknown = set(known) - set(FIELDS)
    assert not unknown, unknown
    empty = dict.fromkeys(FIELDS) | {'licence': NOT_STATED, 'terms': [], 'versions': {}, 'details': {}}
    found = {**empty, 'kind': kind, **{key: value for key, value in known.items() if value is not None}}
    names = [term['name'] for term in found['terms'] if term['kind'] == 'data']
    return {**found, 'training_data': found['training_data'] or names or None}


def refusal(path: Path, what: str) -> ConfigError:
    """Returns the error for a file that is something else. `what` says what it is, e.g. 'a PNG image'."""
    whole = next((name for name in WHOLE if os.path.lexists(path.absolute().parent / name)), None)
    if whole is not None and path.name != whole and not path.is_dir():
        return ConfigError(
            f'{path} is {what}, and the folder has a {whole}. Pass the folder: rass-mm inspect '
            f'{shlex.quote(str(path.parent))}'
        )
    return ConfigError(f'{path} is {what}, and rass-mm inspect reads only {READ}.')


def terms_of(record: Any, config: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Returns recorded terms, or those of the training data of a config if none are recorded."""
    with suppress(RassError):
        return checked(record, list[Term], 'The terms', '')
    return training_terms(config or {})


def licence_of(record: Any) -> str | None:
    """Returns a recorded licence, or None."""
    return record if isinstance(record, str) and record else None


def recipe_of(config: Mapping[str, Any]) -> int | None:
    """Returns the recipe version of the degraded training images of a config, or None."""
    with suppress(AttributeError, TypeError):
        return next((step_version(step) for step in lq_steps(config.get('train_dataloader'))), None)
    return None


def mapping(value: Any, *keys: str) -> dict[str, Any]:
    """Returns the dict under some keys of a nested value, or an empty dict."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def names(value: Any) -> list[str] | None:
    """Returns a list of texts, or None for any other value."""
    if isinstance(value, str):
        return [value]
    known = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return list(value) if known and value else None


def text(value: Any) -> str | None:
    """Returns a text, or None for any other value."""
    return value if isinstance(value, str) and value else None
