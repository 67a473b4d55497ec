"""Writes the pack of a segmentor."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rass_mm.config.kinds import type_name
from rass_mm.config.parts import dicts
from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.diffusion.base import DiffusionBase, read_base
from rass_mm.diffusion.config_terms import config_terms
from rass_mm.engine.structure import weights_of
from rass_mm.engine.trained_state import PROVENANCE, read_provenance
from rass_mm.errors import ConfigError
from rass_mm.files.adapter_header import TERMS
from rass_mm.files.atomic import write_text
from rass_mm.files.hashing import content_hash
from rass_mm.files.new_folder import check_new, new_folder
from rass_mm.files.packs.reading import Pack
from rass_mm.files.packs.schema import ADAPTERS as FOLDER
from rass_mm.files.packs.schema import CONFIG, SEGMENTOR, WEIGHTS, Training
from rass_mm.inference.packs.configs import config_text, config_to_pack, packed_config
from rass_mm.inference.packs.parts import (
    copy_base,
    described_base,
    finish_pack,
    kept_licence,
    kept_metrics,
    read_metrics,
)
from rass_mm.inference.segmentor import Segmentor
from rass_mm.inference.source import ADAPTERS, SegmentorSource, nested, without_pretrained
from rass_mm.segmentation.fitting import surplus_tensors
from rass_mm_cli.licences import NOT_STATED, Term, training_terms


def save_segmentor(
    source: SegmentorSource,
    folder: str | os.PathLike,
    with_base: bool = False,
    metrics: str | os.PathLike | None = None,
    licence: str = NOT_STATED,
) -> Path:
    """Writes the pack of a segmentor to a new folder, after the model was built and its weights were loaded.

    Args:
        source: the checkpoint and its config.
        folder, with_base, metrics, licence: see `PretrainedMixin.save_pretrained`.

    Returns:
        The folder.

    Raises:
        ConfigError: the folder exists, the metrics belong to other weights, or the model needs files or code that packs
            do not contain.
        RassError: the model cannot be built, see `SegmentorSource.build`.
    """
    out = Path(folder).expanduser()
    check_new(out)
    old = source.pack
    weights = old.manifest['provenance'].get('checkpoint_hash') if old else content_hash(source.checkpoint)
    record = read_metrics(kept_metrics(metrics, old), weights)
    segmentor = source.build(torch.device('cpu'))
    base, adapters = _base(source), _adapters(source)
    names = {key: f'{FOLDER}/{number}_{file.stem}.safetensors' for number, (key, file) in enumerate(adapters.items())}
    model = without_pretrained(source.config)
    content = config_to_pack(source.config, model, source.steps(), names, base and base.identity['name'])
    facts = _facts(source, segmentor)
    facts |= {'adapters': names, 'base': described_base(base, with_base, old)}
    facts |= {'licence': kept_licence(licence, old)}
    facts['provenance'] |= {'checkpoint_hash': weights}
    with new_folder(out) as place:
        save_file(_tensors(segmentor.model, source), place / WEIGHTS)
        write_text(place / CONFIG, config_text(content))
        for key, file in adapters.items():
            (place / FOLDER).mkdir(exist_ok=True)
            shutil.copyfile(file, place / names[key])
        if with_base and base is not None:
            copy_base(base, place)
        _check_config(content, place, names)
        finish_pack(place, out, facts, record)
    return out


def _base(source: SegmentorSource) -> DiffusionBase | None:
    """Returns the base of the model, or None if it has none.

    Raises:
        ConfigError: the parts of the model have different bases.
    """
    found = {}
    for part in nested(source.config.model):
        if part.get('base'):
            base = read_base(part['base'])
            found[base.identity['config'], base.identity['weights']] = base
    if len(found) > 1:
        raise ConfigError('The model has parts with different bases, but a pack has one base. Pack them separately.')
    return next(iter(found.values()), None)


def _adapters(source: SegmentorSource) -> dict[str, Path]:
    """Returns key of the config -> adapter file."""
    return {
        f'{key}.{name}': Path(part[name]).expanduser()
        for key, part in dicts(source.config.model, 'model')
        for name in ADAPTERS
        if isinstance(part.get(name), str)
    }


def _tensors(model: nn.Module, source: SegmentorSource) -> dict[str, Tensor]:
    """Returns the weights of a checkpoint that the model uses, each with its own memory."""
    state = weights_of(source.loaded, str(source.checkpoint))
    surplus = set(surplus_tensors(model, state))
    used = {name.removeprefix('module.'): value for name, value in state.items() if name not in surplus}
    return {name: value.detach().cpu().contiguous().clone() for name, value in used.items()}


def _check_config(content: Mapping[str, Any], place: Path, adapters: Mapping[str, str]) -> None:
    """Raises a ConfigError if the written config is not read back as it was."""
    found = packed_config(Pack(place, {'adapters': adapters}))
    if repr(found._cfg_dict.to_dict()) != repr(dict(content)):
        raise ConfigError('The config contains values that YAML cannot represent. Use numbers, strings and lists.')


def _facts(source: SegmentorSource, segmentor: Segmentor) -> dict[str, Any]:
    kind, old = type_name(source.config.model), source.pack
    facts: dict[str, Any] = {'kind': SEGMENTOR, 'model': kind, 'classes': segmentor.classes}
    facts['palette'] = [list(color) for color in segmentor.palette]
    facts['rank'] = next(
        (part['adapter'].get('rank') for part in nested(source.config.model) if isinstance(part.get('adapter'), dict)),
        None,
    )
    if old is not None:
        kept = {key: old.manifest[key] for key in ('name', 'training', 'terms', 'provenance')}
        return {**facts, **kept, 'provenance': dict(kept['provenance'])}
    name = Path(source.config.filename).stem if source.config.filename else source.checkpoint.stem
    facts |= {'name': name, 'training': _training(source), 'terms': source_terms(source)}
    return {**facts, 'provenance': _provenance(source)}


def _provenance(source: SegmentorSource) -> dict[str, Any]:
    record = weights_of(source.loaded, str(source.checkpoint)).get(PROVENANCE)
    found = {'checkpoint': source.checkpoint.name}
    return found if record is None else {**found, 'record': read_provenance(record, str(source.checkpoint))}


def _training(source: SegmentorSource) -> Training:
    versions = [step_version(step) for step in lq_steps(source.config.get('train_dataloader'))]
    iterations = (source.loaded.get('meta') or {}).get('iter')
    return {
        'config': Path(source.config.filename).name if source.config.filename else None,
        'data': [term['name'] for term in training_terms(source.config)],
        'recipe_version': versions[0] if versions else None,
        'iterations': iterations if isinstance(iterations, int) and iterations >= 0 else None,
    }


def source_terms(source: SegmentorSource) -> list[Term]:
    """Returns the licences of all that a segmentor was made of, see `rass_mm_cli.licences`."""
    if source.pack is not None:
        return list(source.pack.manifest['terms'])
    own = (source.loaded.get('meta') or {}).get(TERMS)
    return config_terms(source.config, own, _provenance(source).get('record', {}).get(TERMS))
