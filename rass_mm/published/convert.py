"""Conversion of a published file to an adapter file, or to a checkpoint with its base."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rass_mm.diffusion.adapter_files import read_adapter, write_adapter
from rass_mm.diffusion.adapter_loading import check_base
from rass_mm.diffusion.base import DiffusionBase, read_base
from rass_mm.diffusion.base_loading import models_on_meta
from rass_mm.diffusion.base_terms import base_terms
from rass_mm.diffusion.base_weights import weight_files
from rass_mm.diffusion.config_terms import adapter_terms
from rass_mm.diffusion.text import load_text_model
from rass_mm.engine.trained_state import check_tensors, pack_provenance
from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.files.adapter_header import TERMS
from rass_mm.files.atomic import atomic_folder
from rass_mm.files.hashing import file_sha256
from rass_mm.files.locks import held_beside
from rass_mm.published.conversion import (
    BASE,
    CHECKPOINT,
    REPORT,
    Conversion,
    check_adapter,
    kept_folder,
    read_earlier,
    report_beside,
    write_report,
)
from rass_mm.published.reading import OSEDIFF, RASS, listed_tensors, read_published
from rass_mm.published.restorers import map_restorer
from rass_mm.published.segmentor import BASE_PARTS, MappedSegmentor, map_segmentor
from rass_mm.versions import recorded_versions
from rass_mm_cli.catalog import ENTRIES
from rass_mm_cli.licences import Term, merged, term

BuildModel = Callable[[Path, int], nn.Module]
"""Function that builds a RASS model on the meta device from a base folder and a LoRA rank."""


def convert(
    source: str | os.PathLike,
    out: str | os.PathLike,
    base: str | os.PathLike,
    build: BuildModel,
    kind: str | None = None,
    form: str | None = None,
    scr_adapter: str | os.PathLike | None = None,
) -> Conversion:
    """Converts a published file.

    A file of OSEDiff or SCR is converted to an adapter file `out` (safetensors). A file of RASS is converted to a
    folder `out` with the checkpoint `rass.safetensors` and the base folder `base`. A report that lists every tensor is
    written as well.

    Args:
        source: path of the published file.
        out: the file or folder to write. It must not exist, unless it is the result of the same conversion, which is
            then checked and kept.
        base: the Stable Diffusion folder that the file was trained on. For RASS, the configs, the tokenizer and the
            weights that the file does not contain are copied from it.
        build: function that builds the RASS model, whose tensors the result must match in names and shapes.
        kind: 'osediff', 'scr' or 'rass'. None detects it from the content of the file.
        form: form of a restorer, 'residual' or 'x0'. None uses the default of the kind.
        scr_adapter: converted adapter of the restorer that was merged into the UNet. Required for a RASS file that does
            not contain the UNet's base weights.

    Raises:
        CheckpointError: the file is unsafe or damaged, has an unknown layout or tensor, or does not fit the base or the
            RASS model.
        BaseFolderError: the base cannot be used.
        ConfigError: `out` or its report exists and is not the result of this conversion, `out` has a wrong suffix, or
            `scr_adapter` is not needed.
        DataError: another command writes `out`.
    """
    out = Path(out)
    read_earlier(out)  # an error before gigabytes are read
    kind, content = read_published(source, kind)
    found = read_base(base)
    provenance = {'file': Path(source).name, 'sha256': file_sha256(Path(source)), 'kind': kind}
    adapter = file_sha256(Path(scr_adapter)) if scr_adapter and Path(scr_adapter).is_file() else None
    request = {'source': provenance, 'base': found.identity, 'form': form, 'scr_adapter': adapter}
    with held_beside(out):
        earlier = read_earlier(out, request)  # another command may have written it in the meantime
        if kind != RASS:
            return _write_restorer(kind, content, out, found, form, request)
        mapped = map_segmentor(content['model'], models_on_meta(found)['unet'])
        mapped.left_out |= {
            name: 'state of the training run' for name in listed_tensors(content) if not name.startswith('model/')
        }
        return _write_segmentor(mapped, out, found, build, scr_adapter, request, earlier if out.exists() else None)


def _write_restorer(
    kind: str, content: dict[str, Any], out: Path, base: DiffusionBase, form: str | None, request: dict[str, Any]
) -> Conversion:
    if out.suffix != '.safetensors':
        raise ConfigError(
            f'{out} is not a suitable name, because a restorer is converted to one file. Choose a name that '
            f'ends in .safetensors.'
        )
    report = report_beside(out)
    mapped = map_restorer(kind, content, base, form)
    _check_finite(mapped.tensors)
    recipe = mapped.header['recipe']
    notes = [
        f'form {recipe["form"]} at timestep {recipe["timestep"]}, prompt: the empty text (tags need a tagger)',
        f"rank {mapped.header['rank']}, alpha {mapped.header['alpha']:g} (the file has none: peft's default)",
    ]
    if kind == OSEDIFF:
        notes.append('taken for OSEDiff, because it adapts the VAE; if this is scr.pkl, convert it with --kind scr')
    result = Conversion(kind, [str(out), str(report)], mapped.used, mapped.left_out, notes)
    header, tensors = (
        {**mapped.header, 'source': request['source'], TERMS: _terms(kind, base)},
        unshared(mapped.tensors),
    )
    if out.exists():
        check_adapter(out, header, tensors)
        return result
    write_report(report, result, request)
    write_adapter(out, header, tensors)
    return result


def _terms(kind: str, base: DiffusionBase) -> list[Term]:
    """Returns the licences of published weights and of their base."""
    entry = ENTRIES[kind]
    return merged(base_terms(base.folder, base.identity), [term('weights', entry.title, entry.licence)])


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise CheckpointError(
            f'{bad[0]} contains NaN or infinity ({len(bad)} such tensors in total). Use another file.'
        )


def _write_segmentor(
    mapped: MappedSegmentor,
    out: Path,
    base: DiffusionBase,
    build: BuildModel,
    scr_adapter: str | os.PathLike | None,
    request: dict[str, Any],
    earlier: dict[str, Any] | None,
) -> Conversion:
    adapters = _merged_adapters(mapped, base, scr_adapter)
    for part in (mapped.trained, *mapped.base.values()):
        _check_finite(part)
    _check_parts(mapped.base, base)
    own = build(base.folder, mapped.rank)
    needed = {key: value for key, value in own.state_dict().items() if key != '_extra_state'}
    check_tensors(
        mapped.trained, needed, 'The file does not fit the model of --config', 'Pass the config that it was made for.'
    )
    if earlier is not None:
        return kept_folder(earlier, out, own.classes)
    with atomic_folder(out) as temporary:
        notes = _write_base(mapped.base, base, temporary / BASE)
        record = {
            'base': {**read_base(temporary / BASE).identity, 'name': f'{out.name}/{BASE}'},
            'merged_adapters': adapters,
            'classes': own.classes,
            'versions': recorded_versions(),
            'source': request['source'],
            TERMS: merged(_terms(RASS, base), [] if scr_adapter is None else adapter_terms(scr_adapter)),
        }
        trained = {**mapped.trained, '_extra_state': pack_provenance(record)}
        save_file(unshared(trained), temporary / CHECKPOINT)
        written = [str(out / name) for name in (CHECKPOINT, BASE, REPORT)]
        result = Conversion(RASS, written, mapped.used, mapped.left_out, [f'rank {mapped.rank}', *notes])
        write_report(temporary / REPORT, result, request, temporary)
    return result


def _merged_adapters(
    mapped: MappedSegmentor, base: DiffusionBase, scr_adapter: str | os.PathLike | None
) -> list[dict[str, str]]:
    """Returns the names and hashes of the adapters to merge into the UNet of the base.

    If the file contains only a part of the UNet, that part is removed from `mapped`.

    Raises:
        CheckpointError, ConfigError: an adapter is needed but not given, or given but not needed.
    """
    whole = 'unet' in mapped.base and mapped.base['unet'].keys() > {'conv_in.weight', 'conv_in.bias'}
    if not whole and scr_adapter is None:
        raise CheckpointError(
            "The file does not contain the UNet's base weights, so the restorer that was merged into them is needed. "
            'Convert scr.pkl first and pass the result with --scr-adapter.'
        )
    if whole and scr_adapter is not None:
        raise ConfigError('The file already contains the UNet with the merged restorer. Remove --scr-adapter.')
    if whole:
        return []
    mapped.base.pop('unet', None)
    adapter = read_adapter(scr_adapter)
    check_base(adapter, base.identity)
    return [{key: adapter.header[key] for key in ('name', 'hash')}]


def _check_parts(parts: Mapping[str, dict[str, Tensor]], base: DiffusionBase) -> None:
    """Raises a `CheckpointError` if a part of the base is incomplete in the file or has tensors of other shapes."""
    with torch.device('meta'):
        models = {**models_on_meta(base), 'text_encoder': load_text_model(base)}
    for part, model in models.items():
        if part in parts:
            what = f'The {part} in the file does not fit the base {base.folder}'
            remedy = 'Set --base to the Stable Diffusion folder that the file was made for.'
            check_tensors(_unprefixed(parts[part]), _unprefixed(model.state_dict()), what, remedy)


def _unprefixed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes the prefix `text_model.` of older text encoders. Names with and without it can be loaded."""
    return {key.removeprefix('text_model.'): value for key, value in tensors.items()}


def _write_base(parts: Mapping[str, dict[str, Tensor]], base: DiffusionBase, folder: Path) -> list[str]:
    """Writes a base folder with the weights of the file and all other parts of `base`. Returns notes for the user."""
    weights = ('*.safetensors', '*.safetensors.index*.json', '*.bin', '*.bin.index*.json', '*.ckpt', '.*')
    shutil.copytree(base.folder, folder, ignore=shutil.ignore_patterns(*weights))
    notes = []
    for part in BASE_PARTS:
        if part in parts:
            name = 'model' if part == 'text_encoder' else 'diffusion_pytorch_model'
            (folder / part).mkdir(exist_ok=True)
            tensors = unshared(parts[part])
            save_file(tensors, folder / part / f'{name}.safetensors', metadata={'format': 'pt'})
            notes.append(f'base/{part}: from the file ({len(tensors)} tensors)')
        else:
            for file in [*weight_files(base.folder, part)[0], *(base.folder / part).glob('*.safetensors.index*.json')]:
                shutil.copy(file, folder / part)
            notes.append(f'base/{part}: not in the file, taken from {base.folder.name}')
    return notes


def unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns detached, contiguous tensors that share no storage, as safetensors requires."""
    seen: set[int] = set()
    result = {}
    for key, value in tensors.items():
        value = value.detach().contiguous()
        place = value.untyped_storage().data_ptr()
        whole = value.untyped_storage().nbytes() == value.numel() * value.element_size()
        result[key] = value if whole and place not in seen else value.clone()
        seen.add(place)
    return result
