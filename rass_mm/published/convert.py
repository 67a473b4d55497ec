"""Conversion of a published file to an adapter file, or to a checkpoint with its base."""

import glob
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from rass_mm.compat import recorded_versions
from rass_mm.diffusion.adapters import check_base, read_adapter, write_adapter
from rass_mm.diffusion.base import DiffusionBase, models_on_meta, read_base, weight_files
from rass_mm.diffusion.text import load_text_model
from rass_mm.engine.trained_state import check_tensors, pack_provenance
from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.files.atomic import atomic_folder, write_text
from rass_mm.files.hashing import file_sha256
from rass_mm.files.locks import held
from rass_mm.files.schemas import read_json
from rass_mm.published.reading import OSEDIFF, RASS, listed_tensors, read_published
from rass_mm.published.restorers import map_restorer
from rass_mm.published.segmentor import BASE_PARTS, MappedSegmentor, map_segmentor

CHECKPOINT, BASE, REPORT = 'rass.safetensors', 'base', 'conversion.json'
BuildModel = Callable[[Path, int], nn.Module]
"""Function that builds a RASS model on the meta device from a base folder and a LoRA rank."""


class Report(TypedDict):
    """Content of the report of a conversion: what was asked for, and the result."""

    request: dict[str, Any]
    kind: str
    written: list[str]
    used: dict[str, str]
    left_out: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Args:
        kind: 'osediff', 'scr' or 'rass'.
        written: paths of the output files and folders.
        used: published tensor name -> new name.
        left_out: published tensor name -> reason why the tensor was not converted.
        notes: remarks for the user.
    """

    kind: str
    written: list[str]
    used: dict[str, str]
    left_out: dict[str, str]
    notes: list[str]

    def summary(self) -> str:
        """Returns a summary of the conversion for the user, in a few lines."""
        reasons = Counter(self.left_out.values())
        lines = [f'{self.kind}: {len(self.used)} tensors used, {len(self.left_out)} left out']
        lines += [f'  left out, {count}: {reason}' for reason, count in reasons.items()]
        lines += [f'  note: {note}' for note in self.notes]
        return '\n'.join([*lines, *(f'  wrote {path}' for path in self.written)])


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
            then kept.
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
        ConfigError: `out` or its report exists, `out` has a wrong suffix, or `scr_adapter` is not needed.
    """
    out = Path(out)
    report = out / REPORT if out.is_dir() else out.with_suffix('.' + REPORT)
    earlier = _read_report(report)
    if out.exists() and earlier is None:
        raise ConfigError(f'{out} already exists and is not overwritten. Choose another name or remove it.')
    kind, content = read_published(source, kind)
    found = read_base(base)
    provenance = {'file': Path(source).name, 'sha256': file_sha256(Path(source)), 'kind': kind}
    adapter = file_sha256(Path(scr_adapter)) if scr_adapter and Path(scr_adapter).is_file() else None
    request = {'source': provenance, 'base': found.identity, 'form': form, 'scr_adapter': adapter}
    if earlier is not None:
        if earlier['request'] != json.loads(json.dumps(request)):
            there = out if out.exists() else report
            raise ConfigError(
                f'{there} already exists and is not overwritten. It was converted from another file, or with other '
                'options. Choose another name or remove it.'
            )
        if out.exists():
            return Conversion(**{name: earlier[name] for name in ('kind', 'written', 'used', 'left_out', 'notes')})
    with held(out.absolute().parent, f'.{out.name}.lock', glob.escape(out.stem)):
        if kind != RASS:
            return _write_restorer(kind, content, out, found, form, request)
        mapped = map_segmentor(content['model'], models_on_meta(found)['unet'])
        mapped.left_out |= {
            name: 'state of the training run' for name in listed_tensors(content) if not name.startswith('model/')
        }
        return _write_segmentor(mapped, out, found, build, scr_adapter, request)


def _read_report(path: Path) -> dict[str, Any] | None:
    """Reads the report of an earlier conversion. Returns None if there is none.

    Raises:
        ConfigError: the file is not such a report.
    """
    if not path.exists():
        return None
    fix = f'{path} already exists and is not overwritten. Choose another name or remove it.'
    return dict(read_json(path, Report, fix, ConfigError))


def _write_restorer(
    kind: str, content: dict[str, Any], out: Path, base: DiffusionBase, form: str | None, request: dict[str, Any]
) -> Conversion:
    if out.suffix != '.safetensors':
        raise ConfigError(
            f'{out} is not a suitable name, because a restorer is converted to one file. Choose a name that '
            f'ends in .safetensors.'
        )
    report = out.with_suffix('.' + REPORT)
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
    _write_report(report, result, request)
    write_adapter(out, {**mapped.header, 'source': request['source']}, unshared(mapped.tensors))
    return result


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
) -> Conversion:
    whole = 'unet' in mapped.base and mapped.base['unet'].keys() > {'conv_in.weight', 'conv_in.bias'}
    if not whole and scr_adapter is None:
        raise CheckpointError(
            "The file does not contain the UNet's base weights, so the restorer that was merged into them is needed. "
            'Convert scr.pkl first and pass the result with --scr-adapter.'
        )
    if whole and scr_adapter is not None:
        raise ConfigError('The file already contains the UNet with the merged restorer. Remove --scr-adapter.')
    merged = []
    if not whole:
        mapped.base.pop('unet', None)
        adapter = read_adapter(scr_adapter)
        check_base(adapter, base.identity)
        merged = [{key: adapter.header[key] for key in ('name', 'hash')}]
    for part in (mapped.trained, *mapped.base.values()):
        _check_finite(part)
    _check_parts(mapped.base, base)
    own = build(base.folder, mapped.rank)
    needed = {key: value for key, value in own.state_dict().items() if key != '_extra_state'}
    check_tensors(
        mapped.trained, needed, 'The file does not fit the model of --config', 'Pass the config that it was made for.'
    )
    with atomic_folder(out) as temporary:
        notes = _write_base(mapped.base, base, temporary / BASE)
        record = {
            'base': {**read_base(temporary / BASE).identity, 'name': f'{out.name}/{BASE}'},
            'merged_adapters': merged,
            'classes': own.classes,
            'versions': recorded_versions(),
            'source': request['source'],
        }
        trained = {**mapped.trained, '_extra_state': pack_provenance(record)}
        save_file(unshared(trained), temporary / CHECKPOINT)
        written = [str(out / name) for name in (CHECKPOINT, BASE, REPORT)]
        result = Conversion(RASS, written, mapped.used, mapped.left_out, [f'rank {mapped.rank}', *notes])
        _write_report(temporary / REPORT, result, request)
    return result


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


def _write_report(path: Path, result: Conversion, request: dict[str, Any]) -> None:
    write_text(path, json.dumps({'source': request['source'], 'request': request, **asdict(result)}, indent=1))
