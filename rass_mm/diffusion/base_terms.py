"""Licences of a base and of the data that it was trained on."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from rass_mm.diffusion.base import MODEL_INDEX, SMALL_BASE
from rass_mm.errors import BaseFolderError, RassError
from rass_mm.files.packs.schema import Term as TermRecord
from rass_mm.files.schemas import checked, read_json
from rass_mm_cli.bases import source_named
from rass_mm_cli.catalog import ENTRIES
from rass_mm_cli.licences import OWN, Term, term

TRAINING, FETCHED, SHIPPED = 'training.json', 'fetched.json', 'shipped.json'
"""Records in the folder of a base: of its training, of its download, and of the base that is shipped."""
TERMS = 'terms'
RANDOM = 'RANDOM-'
"""Start of the recorded name of a base with random weights."""


def _record(file: Path, kind: Any = dict[str, Any]) -> Any:
    """Returns the content of a record, or an empty dict if it is missing or cannot be read."""
    with suppress(RassError):
        return read_json(file, kind, '', BaseFolderError)
    return {}


def base_source(folder: Path) -> str | None:
    """Returns the name of the published base that a folder has the record or the name of, or None."""
    if str(_record(folder / MODEL_INDEX).get('_rass_mm_name', '')):
        return None  # written by this package
    fetched = _record(folder / FETCHED).get('entry')
    known = source_named(folder)
    return fetched if isinstance(fetched, str) and fetched in ENTRIES else known and known.name


def base_terms(folder: Path, identity: dict[str, str]) -> list[Term]:
    """Returns the terms of a base: its licence, and the licences of its training data, as far as they are known.

    The licence comes from the weights (of the shipped base), from the record of a download, or from the name of the
    folder, which is that of a published base. Otherwise, it is not stated.

    Args:
        folder: the base folder.
        identity: its identity, see `DiffusionBase.identity`.
    """
    name = identity.get('name') or folder.name
    if identity['weights'] == _record(SMALL_BASE / SHIPPED).get('weights'):
        return [term('base', f'{name} (shipped with rass_mm)', OWN)]
    source = base_source(folder)
    own = term('base', name, ENTRIES[source].licence if source else None)
    return [own, *recorded_terms(_record(folder / TRAINING).get(TERMS))]


def recorded_terms(value: Any) -> list[Term]:
    """Returns the terms in a record, or an empty list if it has none or they have another form."""
    with suppress(RassError):
        return [dict(item) for item in checked(value, list[TermRecord], TERMS, '')]
    return []
