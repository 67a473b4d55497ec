"""Lookup, validation and identification of the frozen base, a Stable Diffusion folder in diffusers layout.

The same code is used for SD 1.5, SD 2.1-base, SD-Turbo and the small base that is shipped with the package, because
every width, head count and stride is read from the configs in the folder. Nothing is ever downloaded.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any

from rass_mm.diffusion.base_schemas import CONFIG_TYPES
from rass_mm.diffusion.base_weights import IDENTIFIED, weights_hash
from rass_mm.errors import BaseFolderError
from rass_mm.files.hashing import json_sha256
from rass_mm.files.schemas import read_json
from rass_mm_cli.bases import SD21_BASE, SHELF, other_bases, places_of, source_named

CONFIGS = {
    'unet': 'unet/config.json',
    'vae': 'vae/config.json',
    'scheduler': 'scheduler/scheduler_config.json',
    'text_encoder': 'text_encoder/config.json',
}
MODEL_INDEX = 'model_index.json'
NAMES = {'vae': 'VAE', 'text_encoder': 'text encoder'}
DOWNLOAD = 'Download the folder again, or pass another one.'
IGNORED_CONFIG_KEYS = (
    '_diffusers_version',
    '_name_or_path',
    '_class_name',
    'transformers_version',
    'torch_dtype',
    'dtype',
)
SMALL_BASE = Path(__file__).resolve().parents[1] / 'demo' / 'base' / 'weights' / 'scenes'
"""Folder of the trained small base that is shipped with the package."""


@dataclass(frozen=True)
class DiffusionBase:
    """Parsed and validated configs of a Stable Diffusion folder, as returned by `read_base`.

    Attributes:
        folder: the folder.
        configs: 'unet', 'vae', 'scheduler' or 'text_encoder' -> config of that part.
    """

    folder: Path
    configs: dict[str, dict[str, Any]]

    @property
    def context_width(self) -> int:
        """Width of one context token (1024 in SD 2.1, 768 in SD 1.5)."""
        return self.configs['unet']['cross_attention_dim']

    @property
    def vae_stride(self) -> int:
        """Image pixels per latent pixel (8 in Stable Diffusion)."""
        return 2 ** (len(self.configs['vae']['block_out_channels']) - 1)

    @property
    def size_multiple(self) -> int:
        """Required divisor of image heights and widths (64 in SD), so that all UNet levels have integer sizes."""
        return self.vae_stride * 2 ** (len(self.configs['unet']['block_out_channels']) - 1)

    @property
    def scaling_factor(self) -> float:
        """Factor by which a VAE latent is multiplied before it is passed to the UNet (0.18215 in SD)."""
        return self.configs['vae'].get('scaling_factor', 0.18215)

    @property
    def identity(self) -> dict[str, str]:
        """Identity of the base: folder name (`name`), hash of the configs (`config`) and `weights_hash` (`weights`)."""
        kept = {
            part: {k: v for k, v in self.configs[part].items() if k not in IGNORED_CONFIG_KEYS} for part in IDENTIFIED
        }
        config = json_sha256(kept)[:16]
        return {'name': self.folder.name, 'config': config, 'weights': weights_hash(self.folder)}


def find_base(sources: str | os.PathLike | Sequence[str | os.PathLike]) -> Path:
    """Returns the first folder of `sources` that contains a UNet config.

    A relative name is looked up in the working directory, then in the folder `$RASS_MM_BASES`.

    Args:
        sources: a folder, or several folders in order of preference.

    Raises:
        BaseFolderError: no folder was found. The message lists all searched places and ways to get a base.
    """
    names = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    if not names:
        raise BaseFolderError('The list of base folders (model.backbone.base, model.base) is empty. Set at least one.')
    places = [place for name in names for place in places_of(name)]
    for place in places:
        if (place / CONFIGS['unet']).is_file():
            return place
    looked = '\n'.join(f'  {place.absolute()}/{CONFIGS["unet"]}' for place in places)
    shelf = os.environ.get(SHELF)
    note = f'{SHELF} is {shelf}' if shelf else f'{SHELF}, the folder that holds the bases, is not set'
    raise BaseFolderError(
        f'No Stable Diffusion base folder found. Looked for:\n{looked}\n({note}.)\n{how_to_get(places[0])}'
    )


def how_to_get(folder: Path) -> str:
    """Returns the end of an error message, which lists ways to get a base.

    Args:
        folder: the missing folder. If it has the name of a known base, the download of that base is listed first.
    """
    known = source_named(folder)
    wanted = known or SD21_BASE
    if known and folder.name == known.name:
        folder = known.folder
    command = indent(wanted.command(known and folder), '    ')
    fetch = f'rass-mm fetch {wanted.name}'
    download = f'download {wanted.title} (nothing is downloaded automatically) with {fetch}, or with:\n{command}'
    source, target = shlex.quote(str(SMALL_BASE)), shlex.quote(str(folder))
    copy = f'mkdir -p {target} && cp -r {source}/. {target}'
    small = (
        f'to try things out, copy the small base that is shipped with the package:\n    {copy}\n'
        f'    or train a smaller one in 3 minutes: rass-mm make-base {folder}'
    )
    own = (
        'use an existing folder in diffusers layout with safetensors weights:\n'
        '    --cfg-options model.backbone.base=/path/to/folder (for a restorer: model.base=...; for a command: --base)'
    )
    random = f'for tests only, write a full-size base with random weights: rass-mm random-base {folder}'
    ways = [download, own, small, random] if known else [small, own, random, download]
    return '\n'.join(['To fix it, do one of these:', *(f'  * {way}' for way in ways), f'  {other_bases()}'])


def read_base(
    sources: str | os.PathLike | Sequence[str | os.PathLike], expect: dict[str, Any] | None = None
) -> DiffusionBase:
    """Finds a base folder, parses its configs and checks that they match each other and the caller's expectations.

    Args:
        sources: a folder, or several folders in order of preference.
        expect: required values of keys in the config of the UNet, e.g. `dict(cross_attention_dim=1024)`, and of
            `prediction_type` in the config of the scheduler (default: 'epsilon').

    Raises:
        BaseFolderError: the base cannot be used. The message contains the file, the value found, the value needed and
            the way to fix it.
    """
    folder = find_base(sources)
    base = DiffusionBase(folder, {part: _read_config(folder, part) for part in CONFIGS})
    if (folder / MODEL_INDEX).exists():
        read_json(folder / MODEL_INDEX, dict[str, Any], DOWNLOAD, BaseFolderError)
    unet, vae, text = base.configs['unet'], base.configs['vae'], base.configs['text_encoder']
    for key, other, part, name in (
        ('in_channels', vae, 'vae', 'latent_channels'),
        ('cross_attention_dim', text, 'text_encoder', 'hidden_size'),
    ):
        why = f'to match the {NAMES[part]}, {name} in {CONFIGS[part]}'
        _require(folder, 'unet', key, unet.get(key), other.get(name), why)
    for key, needed in {'prediction_type': 'epsilon', **(expect or {})}.items():
        part = 'scheduler' if key == 'prediction_type' else 'unet'
        found = base.configs[part].get(key, 'epsilon' if key == 'prediction_type' else None)
        _require(folder, part, key, found, needed, 'expected by the config')
    return base


def _read_config(folder: Path, part: str) -> dict[str, Any]:
    path = folder / CONFIGS[part]
    if not path.exists():
        raise BaseFolderError(
            f'{path} is missing. {folder} is not a complete Stable Diffusion folder in diffusers layout.\n'
            + how_to_get(folder)
        )
    return read_json(path, CONFIG_TYPES[part], DOWNLOAD, BaseFolderError)


def _require(folder: Path, part: str, key: str, found: Any, needed: Any, why: str) -> None:
    if found == needed:
        return
    hint = {
        'prediction_type': 'Use Stable Diffusion 2.1-BASE (512 px, epsilon), not 2.1 (768 px, v_prediction).',
        'cross_attention_dim': 'The value is 1024 in SD 2.1-base and SD-Turbo, and 768 in SD 1.5.',
        'sample_size': 'The value is 64 in a 512 px base and 96 in a 768 px base.',
    }.get(key, '')
    raise BaseFolderError(
        f'{folder / CONFIGS[part]}: {key} is {found!r}, but {needed!r} is needed ({why}). {hint}\n'
        f'Set another folder (--cfg-options model.backbone.base=/path/to/folder). If only the config requires this '
        f'value and you intend to use this base, set --cfg-options model.backbone.expect.{key}={found!r}.'
    )
