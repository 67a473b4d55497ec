"""`rass-mm convert`: converts published weights to an adapter, or to a checkpoint and a base."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rass_mm.diffusion.one_step import FORMS
from rass_mm.files.optional import import_optional
from rass_mm.published.convert import convert
from rass_mm.published.reading import KINDS
from rass_mm_cli.catalog import located
from rass_mm_cli.extras import SEGMENTATION

OFFICIAL = 'rass/rass_ade20k_lq_official.py'


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm convert`."""
    parser.add_argument(
        'source',
        metavar='IN',
        type=located,
        help='published file, e.g. osediff.pkl, or the name of a fetched one: osediff, scr or rass',
    )
    parser.add_argument(
        'out',
        metavar='OUT',
        type=Path,
        help='output: a .safetensors file for a restorer, or a folder for the checkpoint and base of RASS',
    )
    parser.add_argument(
        '--base', type=Path, required=True, help='Stable Diffusion folder that the weights were trained on'
    )
    parser.add_argument('--kind', choices=KINDS, help='kind of file (default: detected from its contents)')
    parser.add_argument(
        '--form', choices=tuple(FORMS), help='one-step form of a restorer (default: x0 for OSEDiff, residual for SCR)'
    )
    parser.add_argument(
        '--scr-adapter',
        type=Path,
        help='RASS only: adapter converted from scr.pkl; required if rass.pth does not contain the merged UNet',
    )
    parser.add_argument(
        '--config', default=OFFICIAL, help=f'RASS only: config of the resulting model (default: {OFFICIAL})'
    )
    parser.set_defaults(run=run, interrupted='Nothing was converted.')
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Converts the file, prints a summary of used and omitted tensors, and returns 0.

    Raises:
        RassError: the file cannot be converted; nothing is written.
    """

    def build(base: Path, rank: int) -> Any:
        module = import_optional('rass_mm.published.model', 'The conversion of rass.pth', SEGMENTATION)
        return module.build_model(arguments.config, base, rank)

    result = convert(
        *(arguments.source, arguments.out, arguments.base, build),
        kind=arguments.kind,
        form=arguments.form,
        scr_adapter=arguments.scr_adapter,
    )
    sys.stdout.write(result.summary() + '\n')
    return 0
