"""Weight files of a base folder: their paths, their hash, and checks of their types."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from rass_mm.errors import BaseFolderError
from rass_mm.files.regular import check_regular

IDENTIFIED = ('unet', 'vae', 'text_encoder')
FLOATS = ('F64', 'F32', 'F16', 'BF16')
"""Types of weights in a safetensors file."""
SAMPLED_VALUES, SAMPLED_ROWS = 64, 16


def weight_files(folder: Path, part: str) -> tuple[list[Path], str | None]:
    """Returns the safetensors files of one part and their variant ('fp16' or None). Full precision is preferred.

    Args:
        folder: the base folder.
        part: 'unet', 'vae' or 'text_encoder', or '.' for a folder that contains a single model.

    Raises:
        BaseFolderError: the part has no safetensors files. Other formats are not read, because they can contain code.
    """
    stem = 'model' if part == 'text_encoder' else 'diffusion_pytorch_model'
    for variant in (None, 'fp16'):
        infix = f'.{variant}' if variant else ''
        # In the name of a sharded file, the variant precedes the number: model.fp16-00001-of-00002.safetensors.
        files = sorted((folder / part).glob(f'{stem}{infix}.safetensors')) or sorted(
            (folder / part).glob(f'{stem}{infix}-*-of-*.safetensors')
        )
        if files:
            return files, variant
    found = sorted(path.name for path in (folder / part).glob('*') if path.suffix != '.json')
    raise BaseFolderError(
        f'{folder / part} contains no {stem}.safetensors (found: {", ".join(found) or "no weights at all"}). Only '
        f'safetensors are read, because pickled weights can run code. Download the safetensors variant of this folder.'
    )


def weights_hash(folder: Path, parts: Sequence[str] = IDENTIFIED) -> str:
    """Computes a hash (16 hexadecimal digits) of the weights of some parts of a base.

    It depends on the name, the shape and a sample of the values of each tensor. The values are rounded to float16, so
    that the float32 and float16 files of a base have the same hash. Returns 'none' if the default device is 'meta'.
    """
    if on_meta():
        return 'none'
    digest = hashlib.sha256()
    for part in parts:
        samples: dict[str, bytes] = {}
        for file in weight_files(folder, part)[0]:
            with _open_weights(file) as tensors:
                names = tensors.keys()
                samples |= {name: _sample(tensors.get_slice(name)) for name in names}
        for name in sorted(samples):  # over all shards, so that the hash does not depend on the sharding
            digest.update(f'{part}.{name}'.encode() + samples[name])
    return digest.hexdigest()[:16]


def _sample(values: Any) -> bytes:
    """Returns the shape and some values of a tensor as bytes. The values are from rows spread over the whole tensor."""
    shape = values.get_shape()
    if len(shape) < 2:
        rows = [values[:]]
    else:
        rows = [values[row : row + 1] for row in range(0, shape[0], max(1, shape[0] // SAMPLED_ROWS))]
    sample = torch.cat([row.flatten()[:SAMPLED_VALUES] for row in rows])
    return f'{list(shape)}'.encode() + sample.to(torch.float16).numpy().tobytes()


def _open_weights(file: Path) -> Any:
    check_regular(file, 'Replace it by the file of the base.', BaseFolderError)
    try:
        return safe_open(file, 'pt')
    except Exception as error:  # the error type of safetensors has no common base class
        raise BaseFolderError(f'{file} is damaged or incomplete ({error}). Download it again.') from None


def on_meta() -> bool:
    """Returns whether the default device is 'meta', on which modules are built with shapes but without values."""
    return torch.get_default_device().type == 'meta'


def check_types(file: Path) -> None:
    """Raises a BaseFolderError if a file cannot be opened or contains integers or quantized weights."""
    with _open_weights(file) as tensors:
        types = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118  (not a dict)
    wrong = [name for name, kind in types.items() if kind not in FLOATS and not name.endswith('position_ids')]
    if wrong:
        raise BaseFolderError(
            f'{file}: {wrong[0]} has the type {types[wrong[0]]}, but it must be one of {", ".join(FLOATS)} '
            f'({len(wrong)} such tensors in total). Download the variant of the folder that is not quantized.'
        )
