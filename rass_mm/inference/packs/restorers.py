"""Writes the pack of a restorer."""

import os
import shutil
from pathlib import Path
from typing import Any

from rass_mm.diffusion.adapter_files import Adapter, AdapterSource, read_adapter
from rass_mm.diffusion.base_terms import base_terms, recorded_terms
from rass_mm.diffusion.pack_base import Bases
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.files.adapter_header import TERMS
from rass_mm.files.new_folder import check_new, new_folder
from rass_mm.files.packs.reading import is_pack, open_pack
from rass_mm.files.packs.schema import ADAPTER, RESTORER
from rass_mm.inference.packs.parts import (
    copy_base,
    described_base,
    finish_pack,
    kept_licence,
    kept_metrics,
    read_metrics,
)
from rass_mm_cli.licences import NOT_STATED, merged

SOURCE = 'source'
"""Key of the header of a converted adapter."""


def save_restorer(
    adapter: AdapterSource,
    base: Bases,
    folder: str | os.PathLike,
    with_base: bool = False,
    metrics: str | os.PathLike | None = None,
    licence: str = NOT_STATED,
) -> Path:
    """Writes the pack of a restorer to a new folder, after the restorer was built.

    Args:
        adapter: an adapter file, its content, or the folder of a pack.
        base: the base that the adapter was trained on.
        folder, with_base, metrics, licence: see `PretrainedMixin.save_pretrained`.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder exists, or the metrics cannot be used.
        RassError: the restorer cannot be built, see `load_restorer`.
    """
    out = Path(folder).expanduser()
    check_new(out)
    path = adapter.path if isinstance(adapter, Adapter) else adapter
    old = open_pack(path, RESTORER) if is_pack(path) else None
    file = old.path(ADAPTER) if old else Path(path).expanduser()
    record = read_metrics(kept_metrics(metrics, old), None)
    content = read_adapter(file)
    found = load_restorer(content, base).model.base
    facts = _facts(content, file.stem) if old is None else {key: old.manifest[key] for key in _KEPT}
    if old is None:
        facts['terms'] = merged(base_terms(found.folder, found.identity), facts['terms'])
    facts |= {'base': described_base(found, with_base, old), 'adapters': {}, 'palette': []}
    facts['licence'] = kept_licence(licence, old)
    with new_folder(out) as place:
        shutil.copyfile(file, place / ADAPTER)
        if with_base:
            copy_base(found, place)
        finish_pack(place, out, facts, record)
    return out


_KEPT = ('kind', 'name', 'model', 'classes', 'rank', 'training', 'terms', 'provenance')


def _facts(adapter: Adapter, name: str) -> dict[str, Any]:
    header = adapter.header
    recipe, terms = header['recipe'], recorded_terms(header.get(TERMS))
    training = {'config': None, 'data': [term['name'] for term in terms if term['kind'] == 'data']}
    training |= {'recipe_version': _version(header), 'iterations': None}
    provenance = {'adapter': header['name'], 'hash': header['hash'], 'recipe': recipe}
    provenance |= {SOURCE: header[SOURCE]} if SOURCE in header else {}
    return {
        **{'kind': RESTORER, 'name': name, 'model': f'one-step restorer, form {recipe["form"]}'},
        **{'classes': recipe['classes'], 'rank': header['rank'], 'training': training, 'terms': terms},
        'provenance': provenance,
    }


def _version(header: dict[str, Any]) -> int | None:
    version = header.get('recipe_version')
    return version if isinstance(version, int) else None
