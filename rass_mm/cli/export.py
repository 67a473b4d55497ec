"""`rass-mm export`: exports a trained segmentor or restorer to OpenVINO, ONNX or `torch.export`."""

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from rass_mm.cli.options import add_autoencoder, add_overrides, side
from rass_mm.config.building import named_parts
from rass_mm.devices import DTYPES
from rass_mm.diffusion.adapter_files import is_adapter, read_adapter
from rass_mm.diffusion.base import find_base
from rass_mm.diffusion.base_terms import base_terms, recorded_terms
from rass_mm.diffusion.pack_base import restorer_files
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.errors import ConfigError
from rass_mm.export.formats import format_module
from rass_mm.export.metadata import FORMATS, RESTORER, Metadata
from rass_mm.export.networks import (
    expected_output,
    restorer_facts,
    restorer_network,
    segmentor_facts,
    segmentor_network,
)
from rass_mm.export.writing import ExportOptions, earlier_export, write_export
from rass_mm.files.adapter_header import TERMS
from rass_mm.files.hashing import content_hash, files_sha256
from rass_mm.files.packs.reading import is_pack, read_pack
from rass_mm.inference.loading import SegmentorSource, read_segmentor
from rass_mm.inference.modes import SegmentOptions
from rass_mm.inference.packs.segmentors import source_terms
from rass_mm.inference.restore import RestoreOptions
from rass_mm.inference.sample_windows import restorer_windows, sample_files, segmentor_windows
from rass_mm_cli.licences import merged


class Part(NamedTuple):
    """Network to export, with the values that describe it, see `write_export`."""

    network: nn.Module
    facts: dict[str, Any]
    expected: np.ndarray
    provenance: dict[str, Any]
    calibration: list[np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm export`."""
    parser.add_argument(
        'source',
        metavar='IN',
        type=Path,
        help='checkpoint of a trained segmentor, adapter file of a restorer, or the pack of either',
    )
    parser.add_argument('out', metavar='OUT', type=Path, help='folder of the exported model; it must not exist')
    parser.add_argument('--format', choices=FORMATS, required=True, help='format of the exported model')
    parser.add_argument('--dtype', choices=DTYPES, help='precision of the weights (default: float32)')
    parser.add_argument(
        '--int8', action='store_true', help='quantise weights and activations to 8 bits; needs --calibration'
    )
    parser.add_argument('--calibration', type=Path, metavar='FOLDER', help='images that show the range of activations')
    parser.add_argument(
        '--window',
        type=side,
        help='side of a window in pixels, which is fixed in the exported model (default: that of the config of a '
        f'segmentor; {RestoreOptions.window} for a restorer)',
    )
    parser.add_argument('--base', type=Path, help='Stable Diffusion folder (required for a restorer)')
    parser.add_argument(
        '--config', help='segmentor only: config file, or name of a shipped config (default: that in the checkpoint)'
    )
    add_autoencoder(parser)
    add_overrides(parser, 'segmentor only: config overrides as key=value, with dots in nested keys')
    parser.set_defaults(run=run, interrupted='Nothing was exported.')
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Exports the model and prints a summary; returns 0.

    Raises:
        RassError: the model cannot be exported; nothing is written.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    start = time.monotonic()
    if arguments.int8 and (arguments.dtype or arguments.calibration is None):
        raise ConfigError('--int8 needs images (--calibration FOLDER) and no --dtype.')
    if arguments.calibration and not arguments.int8:
        raise ConfigError('--calibration is only used with --int8. Add --int8 or remove --calibration.')
    options = ExportOptions(
        arguments.format, 'int8' if arguments.int8 else arguments.dtype or 'float32', arguments.window
    )
    files = sample_files(arguments.calibration) if arguments.calibration else []
    calibrated = {'calibration': files_sha256(files)} if files else {}
    if is_pack(arguments.source) and read_pack(arguments.source).manifest['kind'] == RESTORER:
        arguments.source, arguments.base = restorer_files(arguments.source, arguments.base)
    if is_adapter(arguments.source):
        identity, load = _restorer_identity(arguments), lambda: _restorer(arguments, options, files)
    else:
        source = _segmentor_source(arguments)
        identity, load = source.identity(), lambda: _segmentor(source, options, files)
    request = options.request({**identity, **calibrated})
    metadata = earlier_export(arguments.out, request)
    if metadata is None:
        format_module(options.format)  # an error of its libraries before the model is loaded
        part = load()
        given = (part.expected, request, part.provenance, part.calibration)
        metadata = write_export(part.network, part.facts, arguments.out, options, *given)
    sys.stdout.write(summary(arguments.out, metadata, time.monotonic() - start) + '\n')
    return 0


def _segmentor_source(arguments: argparse.Namespace) -> SegmentorSource:
    if arguments.autoencoder or arguments.autoencoder_ends != 'decoder':
        raise ConfigError('A segmentor has no tiny autoencoder. Remove --autoencoder and --autoencoder-ends.')
    return read_segmentor(arguments.source, arguments.config, arguments.base, arguments.cfg_options)


def _segmentor(source: SegmentorSource, options: ExportOptions, files: list[Path]) -> Part:
    with named_parts(source.config, 'model'):
        segmentor = source.build(torch.device('cpu'), None, SegmentOptions(window=options.window))
        model, window = segmentor.model, segmentor.choice.window
        facts = segmentor_facts(
            model, segmentor.classes, segmentor.palette, source.json_steps(), segmentor.choice.stride
        )
        calibration = segmentor_windows(segmentor, files, window)
        provenance = {'checkpoint': source.checkpoint.name, **(getattr(model, 'provenance', None) or {})}
        provenance |= {TERMS: source_terms(source), 'licence': source.pack and source.pack.manifest['licence']}
        expected = expected_output(model, window)
        return Part(segmentor_network(model, options.computed), facts, expected, provenance, calibration)


def _restorer(arguments: argparse.Namespace, options: ExportOptions, files: list[Path]) -> Part:
    parts = (arguments.source, arguments.base, arguments.autoencoder, arguments.autoencoder_ends)
    restorer = load_restorer(*parts)
    chosen = RestoreOptions(window=options.window or RestoreOptions.window, overlap=0)
    window, _ = chosen.tiling(restorer.size_multiple)
    overlap = min(RestoreOptions.overlap, window // 4) // restorer.size_multiple * restorer.size_multiple
    size = (window, window)
    header, base = read_adapter(arguments.source).header, restorer.model.base
    provenance = {
        'adapter': {name: header[name] for name in ('name', 'hash', 'rank', 'recipe')},
        'base': base.identity,
        TERMS: merged(base_terms(base.folder, base.identity), recorded_terms(header.get(TERMS))),
    }
    facts = restorer_facts(restorer, (window - overlap, window - overlap))
    expected = expected_output(restorer, size)
    network = restorer_network(restorer, options.computed)
    return Part(network, facts, expected, provenance, restorer_windows(files, size))


def _restorer_identity(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.base is None:
        raise ConfigError('A restorer needs the Stable Diffusion folder that it was trained on. Set --base.')
    if arguments.config or arguments.cfg_options:
        raise ConfigError('A restorer has no config. Remove --config and --cfg-options.')
    arguments.base = find_base(arguments.base)
    names = ('source', 'base', 'autoencoder')
    return {**{name: content_hash(getattr(arguments, name)) for name in names}, 'ends': arguments.autoencoder_ends}


def summary(out: Path, metadata: Metadata, seconds: float) -> str:
    """Describes an exported model in a few lines."""
    height, width = metadata['input'][2:]
    sizes = ', '.join(f'{name} {file["bytes"] / 2**20:.1f} MiB' for name, file in metadata['files'].items())
    return (
        f'{out}: {metadata["model"]} ({metadata["kind"]}), {metadata["format"]}, {metadata["dtype"]}, windows of '
        f'{width}x{height} pixels ({seconds:.1f} s)\n  {sizes}\n'
        f'  relative difference from the model in PyTorch: {metadata["parity"]["relative"]:.1e}'
    )
