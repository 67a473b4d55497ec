"""`rass-mm convert`: converts published weights to an adapter, or to a checkpoint and a base."""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from rass_mm.config import load_config
from rass_mm.diffusion.adapters import AdapterSpec
from rass_mm.diffusion.one_step import FORMS
from rass_mm.errors import ConfigError
from rass_mm.published.convert import convert
from rass_mm.published.lora import ALPHA
from rass_mm.published.reading import KINDS

OFFICIAL = 'rass/rass_ade20k_lq_official.py'


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm convert`."""
    parser.add_argument('source', metavar='IN', type=Path, help='published file: osediff.pkl, scr.pkl or rass.pth')
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


def check_adapter(adapter: AdapterSpec, rank: int, config: str) -> None:
    """Raises a ConfigError if the LoRA rank or alpha of a config differs from that of the published file."""
    if (adapter.rank, adapter.alpha) != (rank, ALPHA):
        raise ConfigError(
            f'{config} has a LoRA of rank {adapter.rank} and alpha {adapter.alpha:g}, but the file has rank '
            f'{rank} and alpha {ALPHA:g}. Set --config to a config with model.backbone.adapter=dict(rank={rank}, '
            f'alpha={ALPHA:g}).'
        )


def run(arguments: argparse.Namespace) -> int:
    """Converts the file, prints a summary of used and omitted tensors, and returns 0.

    Raises:
        RassError: the file cannot be converted; nothing is written.
    """

    def build(base: Path, rank: int) -> Any:
        init_default_scope('mmseg')
        config = load_config(arguments.config, {'model.backbone.base': str(base)})
        if config.model.get('type') != 'RASS':
            raise ConfigError(
                f'--config {arguments.config} has a model of type {config.model.get("type")}, but RASS is required. '
                'Choose the config of a RASS model.'
            )
        check_adapter(AdapterSpec(**(config.model.backbone.get('adapter') or {})), rank, arguments.config)
        # Only names and shapes are needed. They do not depend on the tagger, which may not be installed.
        config.model.prompt = {'type': 'EmptyPrompt'}
        with torch.device('meta'):
            return MODELS.build(config.model)

    result = convert(
        *(arguments.source, arguments.out, arguments.base, build),
        kind=arguments.kind,
        form=arguments.form,
        scr_adapter=arguments.scr_adapter,
    )
    sys.stdout.write(result.summary() + '\n')
    return 0
