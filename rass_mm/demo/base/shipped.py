"""Small base included in the package, and the function that writes its folder from a trained base."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rass_mm.diffusion.base import SMALL_BASE, read_base
from rass_mm.diffusion.base_weights import IDENTIFIED, weight_files
from rass_mm.errors import BaseFolderError
from rass_mm.files.atomic import write_text
from rass_mm.files.hashing import file_sha256

RECORD = 'shipped.json'
"""Name of the file next to the weights that records the commands, the seed, the CPU seconds and the hashes."""
COMMANDS = (
    'rass-mm make-base bases/scenes-tiny',
    'rass-mm make-base bases/scenes --scenes 4096 --start bases/scenes-tiny --fresh-unet --vae-steps 900 '
    '--vae-rate 6e-4 --unet-crop 16 --unet-batch 16 --snr-gamma 5 --unet-steps 10000',
)
"""Commands that train the base. With one thread (`OMP_NUM_THREADS=1`), the weights are reproducible bit for bit."""


def shipped_base() -> Path:
    """Returns the folder of the shipped small base, which is in diffusers layout with float16 weights."""
    return SMALL_BASE


def shipped_record() -> dict[str, Any]:
    """Returns the record of the shipped base: `commands`, `seed`, CPU `seconds`, and hashes of weights and files."""
    return json.loads((SMALL_BASE / RECORD).read_text(encoding='utf-8'))


def ship_base(source: Path, target: Path, seconds: int) -> None:
    """Writes a trained base in float16, with a record of how it was made.

    The hash of the weights stays the same because it is computed from values rounded to float16.

    Args:
        source: the folder written by the last of `COMMANDS`.
        target: the folder to write; must be absent or empty.
        seconds: CPU seconds that the training took.

    Raises:
        BaseFolderError: the source is not a complete base, or the target is not empty.
    """
    if target.exists() and any(target.iterdir()):
        raise BaseFolderError(f'{target} is not empty. Remove it first, or choose a new folder.')
    base = read_base(source)
    part = target.with_name(f'.{target.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, ignore=shutil.ignore_patterns('*.safetensors', '.*'), copy_function=shutil.copyfile)
    files = {name: weight_files(base.folder, name)[0] for name in IDENTIFIED}
    for name, found in files.items():
        for file in found:
            _write_half(file, part / name / f'{file.stem}.fp16.safetensors')
    record = {
        'commands': COMMANDS,
        'seed': json.loads((source / 'training.json').read_text(encoding='utf-8'))['recipe']['seed'],
        'seconds': seconds,
        'weights': base.identity['weights'],
        'float32': {f'{name}/{file.name}': file_sha256(file) for name, found in files.items() for file in found},
        'float16': {file.relative_to(part).as_posix(): file_sha256(file) for file in sorted(part.rglob('*.fp16.*'))},
    }
    write_text(part / RECORD, json.dumps(record, indent=2) + '\n')
    if target.exists():
        target.rmdir()
    target.parent.mkdir(parents=True, exist_ok=True)
    part.rename(target)


def _write_half(source: Path, target: Path) -> None:
    tensors = {name: tensor.to(torch.float16) for name, tensor in load_file(source).items()}
    save_file(tensors, target, metadata={'format': 'pt'})
    target.chmod(0o644)
