"""`rass-mm pack`: packs a trained model into one folder to hand over."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from rass_mm.cli.options import add_overrides
from rass_mm.config.building import named_parts
from rass_mm.config.kinds import type_name
from rass_mm.diffusion.adapter_files import is_adapter
from rass_mm.diffusion.pack_base import restorer_files
from rass_mm.errors import ConfigError
from rass_mm.files.new_folder import check_new
from rass_mm.files.packs.reading import is_pack, read_pack
from rass_mm.files.packs.schema import RESTORER
from rass_mm.inference.loading import read_segmentor
from rass_mm.inference.packs.restorers import save_restorer
from rass_mm.inference.packs.segmentors import save_segmentor
from rass_mm_cli.licences import NOT_STATED


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm pack`."""
    parser.add_argument(
        'source',
        metavar='CHECKPOINT',
        type=Path,
        help='checkpoint of a trained segmentor, adapter file of a restorer, or a pack',
    )
    parser.add_argument('out', metavar='FOLDER', type=Path, help='folder of the pack; it must not exist')
    parser.add_argument('--base', type=Path, help='Stable Diffusion folder (required for a restorer)')
    parser.add_argument(
        '--with-base',
        action='store_true',
        help='copy the base into the pack (default: the base is found by its name and hash where the pack is used)',
    )
    parser.add_argument('--metrics', type=Path, help='metrics.json of a test of the model, for the model card')
    parser.add_argument(
        '--licence',
        default=NOT_STATED,
        help='licence of the model, e.g. Apache-2.0; compared with those of base and data (default: not stated)',
    )
    parser.add_argument(
        '--config', help='segmentor only: config file, or name of a shipped config (default: that in the checkpoint)'
    )
    add_overrides(parser, 'segmentor only: config overrides as key=value, with dots in nested keys')
    parser.set_defaults(run=run, interrupted='Nothing was packed.')
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Writes the pack and prints a summary; returns 0.

    Raises:
        RassError: the model cannot be packed; nothing is written.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    check_new(arguments.out)
    settings = {'with_base': arguments.with_base, 'metrics': arguments.metrics, 'licence': arguments.licence}
    if is_adapter(arguments.source) or _is_restorer_pack(arguments.source):
        _pack_restorer(arguments, settings)
    else:
        source = read_segmentor(arguments.source, arguments.config, arguments.base, arguments.cfg_options)
        if type_name(source.config.model).endswith('SCRRestorer'):
            raise ConfigError(
                f'{arguments.source} is the checkpoint of a restorer. Pass the adapter file that its training wrote to '
                'the same folder, scr_adapter.safetensors.'
            )
        with named_parts(source.config, 'model'):
            save_segmentor(source, arguments.out, **settings)
    sys.stdout.write(summary(arguments.out) + '\n')
    return 0


def _is_restorer_pack(source: Path) -> bool:
    return is_pack(source) and read_pack(source).manifest['kind'] == RESTORER


def _pack_restorer(arguments: argparse.Namespace, settings: dict[str, Any]) -> None:
    if arguments.config or arguments.cfg_options:
        raise ConfigError('A restorer has no config. Remove --config and --cfg-options.')
    _, base = restorer_files(arguments.source, arguments.base)
    if base is None:
        raise ConfigError('A restorer needs the Stable Diffusion folder that it was trained on. Set --base.')
    save_restorer(arguments.source, base, arguments.out, **settings)


def summary(folder: Path) -> str:
    """Describes a pack in a few lines."""
    manifest = read_pack(folder).manifest
    size = sum(file['bytes'] for file in manifest['files'].values()) / 2**20
    base = manifest['base']
    found = 'no base' if base is None else 'with its base' if base['included'] else f'needs the base {base["name"]}'
    return (
        f'{folder}: {manifest["model"]} ({manifest["kind"]}), {len(manifest["files"])} files, {size:.1f} MiB, {found}\n'
        f'  licence: {manifest["licence"]}; the model card is {folder / "README.md"}'
    )
