"""Licences of all that the model of a config is made of: bases, adapters and training data."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_terms import base_terms, recorded_terms
from rass_mm.errors import RassError
from rass_mm.files.adapter_header import TERMS, adapter_header
from rass_mm_cli.licences import Term, merged, training_terms

ADAPTERS = ('scr_adapter', 'adapter', 'start')
"""Keys of a model that name an adapter file."""


def config_terms(config: Mapping[str, Any], *others: Any) -> list[Term]:
    """Returns the terms of the bases, the adapters and the training data of a config.

    Bases and adapters that cannot be read are left out, because building the model reports them.

    Args:
        config: a config with `model` and `train_dataloader`.
        others: further recorded terms, e.g. those of a checkpoint; values of other forms are ignored.
    """
    parts = list(_parts(config.get('model')))
    bases = [_terms_of_base(part['base']) for part in parts if part.get('base')]
    files = [part[key] for part in parts for key in ADAPTERS if isinstance(part.get(key), str)]
    adapters = [adapter_terms(file) for file in files]
    return merged(*bases, *adapters, *map(recorded_terms, others), training_terms(config))


def adapter_terms(file: str | os.PathLike) -> list[Term]:
    """Returns the terms in the header of an adapter file, or an empty list if it has none or cannot be read."""
    with suppress(RassError, OSError):
        return recorded_terms(adapter_header(Path(file).expanduser()).get(TERMS))
    return []


def _terms_of_base(sources: Any) -> list[Term]:
    with suppress(RassError):
        base = read_base(sources)
        return base_terms(base.folder, base.identity)
    return []


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _parts(item)
