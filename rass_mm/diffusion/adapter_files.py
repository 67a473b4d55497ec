"""Writing and reading of adapter files, which contain a LoRA and the full `conv_in` of its UNet."""

import hashlib
import json
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rass_mm.diffusion.adapter_checks import check_tensors
from rass_mm.diffusion.adapters import adapter_tensors
from rass_mm.errors import AdapterError
from rass_mm.files.adapter_header import HEADER, check_header
from rass_mm.files.atomic import atomic_path
from rass_mm.files.newest import files_in, newest_files
from rass_mm.files.packs.schema import PACK
from rass_mm.files.plain_pickle import other_archive
from rass_mm.files.regular import check_regular

SUFFIX = '.safetensors'
VAE = 'vae.'
"""Prefix of the names of VAE tensors in an adapter file. OSEDiff adapts the VAE in addition to the UNet."""


@dataclass(frozen=True)
class Adapter:
    """Content of an adapter file, as returned by `read_adapter`.

    Args:
        path: path of the file, for error messages.
        header: metadata with the keys `name`, `rank`, `alpha`, `targets`, `base`, `hash` and optionally `recipe`,
            `vae`, `source`.
        tensors: name in the file -> tensor.
    """

    path: str | os.PathLike
    header: dict[str, Any]
    tensors: dict[str, Tensor]


AdapterSource = str | os.PathLike | Adapter
"""Path of an adapter file, or its content if it has already been read, so that a large file is not read again."""


def content_hash(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Computes the hash of an adapter file (16 hexadecimal digits).

    It depends on the header's `rank`, `alpha`, `targets` and `vae`, and on the name, the shape and all values of each
    tensor.
    """
    described = [header[key] for key in ('rank', 'alpha', 'targets', 'vae') if key in header]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for key in sorted(tensors):
        digest.update(f'{key}{list(tensors[key].shape)}'.encode())
        digest.update(tensors[key].float().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_adapter(
    unet: UNet2DConditionModel,
    name: str,
    path: str | os.PathLike,
    base_identity: dict[str, str],
    recipe: dict[str, Any] | None = None,
    origin: dict[str, Any] | None = None,
) -> None:
    """Writes an adapter of a UNet and the full `conv_in` to a file, see `write_adapter`.

    Args:
        unet: the UNet.
        name: name of the adapter.
        path: the file to write.
        base_identity: identity of the base of the UNet.
        recipe: settings with which the adapter is used, e.g. the form, timestep, prompt and classes of a restorer. They
            are copied to the header unchanged.
        origin: further entries of the header, e.g. `terms` and `versions`.
    """
    tensors = adapter_tensors(unet, name)
    config = unet.peft_config[name]
    header = {
        'name': name,
        'rank': config.r,
        'alpha': config.lora_alpha,
        'targets': sorted(config.target_modules),
        'base': base_identity,
        **({'recipe': recipe} if recipe else {}),
        **(origin or {}),
    }
    write_adapter(path, header, tensors)


def write_adapter(path: str | os.PathLike, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Writes an adapter file: safetensors with a JSON header, to which the hash of the content is added.

    Args:
        path: the file to write.
        header: metadata with the keys `name`, `rank`, `alpha`, `targets`, `base` and optionally `recipe`, `vae`,
            `source`.
        tensors: name in the file -> tensor.
    """
    header = {**header, 'hash': content_hash(header, tensors)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER: json.dumps(header)})


def as_adapter(source: AdapterSource) -> Adapter:
    """Returns `source` if it is an `Adapter`. Otherwise, reads the file `source`, see `read_adapter`."""
    return source if isinstance(source, Adapter) else read_adapter(source)


def is_adapter(path: str | os.PathLike) -> bool:
    """Returns whether a file is a safetensors file with the header of an adapter."""
    try:
        with safe_open(path, 'pt') as file:
            return HEADER in (file.metadata() or {})
    except Exception:  # the error type of safetensors has no common base class
        return False


def read_adapter(path: str | os.PathLike) -> Adapter:
    """Reads an adapter file and checks its hash and its values.

    Raises:
        AdapterError: the file does not exist, is damaged, was changed, was not written by `write_adapter`, or contains
            values that are not finite. The message names the file.
    """
    if not os.path.isdir(path):
        check_regular(path, 'Pass an adapter file.', AdapterError)
    try:
        with safe_open(path, 'pt') as file:
            header = json.loads((file.metadata() or {}).get(HEADER, 'null'))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is not a dict)
    except FileNotFoundError:
        raise AdapterError(f'Adapter file {path} does not exist. Check the path.') from None
    except Exception as error:  # the error type of safetensors has no common base class
        raise AdapterError(_unreadable(path, error)) from None
    if header is None:
        raise AdapterError(
            f'{path} is a safetensors file without the {HEADER!r} header, so it is not an adapter of this package. '
            f'Pass a file that was written by training or by rass-mm convert.'
        )
    check_header(header, path)
    if content_hash(header, tensors) != header['hash']:
        raise AdapterError(
            f'{path} was changed or damaged: its content does not match the hash in its header. Copy it again.'
        )
    check_tensors(header, tensors, path, VAE)
    bad = [key for key in sorted(tensors) if not torch.isfinite(tensors[key]).all()]
    if bad:
        raise AdapterError(
            f'{path}: {bad[0]} contains NaN or infinity ({len(bad)} such tensors in total). The training of this '
            f'adapter has probably diverged. Use an adapter from an earlier checkpoint.'
        )
    return Adapter(path, header, tensors)


def _unreadable(path: str | os.PathLike, error: Exception) -> str:
    """Describes a file that is not an adapter. For a checkpoint or a folder, names the adapters beside or in it."""
    if os.path.isdir(path):
        return f'Adapter file {path} is a folder. {files_in(path, (SUFFIX,))}'
    with open(path, 'rb') as file:
        zipped = file.read(4) == b'PK\x03\x04'  # as torch.save writes
    if not zipped:
        return f'Adapter file {path} is damaged or not safetensors ({error}). Copy it again.'
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if PACK in (name.rpartition('/')[2] for name in names):
            return f'{path} {other_archive(names)}'
    beside = newest_files(Path(path).parent, (SUFFIX,))
    named = f', e.g. {", ".join(map(str, beside))}' if beside else ' to its work dir'
    return f'{path} is a checkpoint of PyTorch, not an adapter file. Pass the {SUFFIX} file that training wrote{named}.'
