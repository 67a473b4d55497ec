"""`rass-mm convert`: published weights to an adapter, or to a checkpoint and a base."""

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
    """The arguments of `rass-mm convert`."""
    parser.add_argument('source', metavar='IN', type=Path, help='osediff.pkl, scr.pkl or rass.pth as published')
    parser.add_argument(
        'out', metavar='OUT', type=Path, help='restorers: a .safetensors file; RASS: a folder for checkpoint and base'
    )
    parser.add_argument('--base', type=Path, required=True, help='the Stable Diffusion folder it was trained on')
    parser.add_argument('--kind', choices=KINDS, help='what the file is (default: seen from its content)')
    parser.add_argument(
        '--form', choices=tuple(FORMS), help="a restorer's one-step form (default: x0 for OSEDiff, residual for SCR)"
    )
    parser.add_argument(
        '--scr-adapter', type=Path, help='RASS only: the converted scr.pkl, where the file lacks the merged UNet'
    )
    parser.add_argument(
        '--config', default=OFFICIAL, help=f'RASS only: the config whose model it becomes (default: {OFFICIAL})'
    )
    parser.set_defaults(run=run)
    return parser


def check_adapter(adapter: AdapterSpec, rank: int, config: str) -> None:
    """Raises a ConfigError where a config's LoRA is not the file's: the result would not load, or load and be wrong."""
    if (adapter.rank, adapter.alpha) != (rank, ALPHA):
        raise ConfigError(
            f'{config} has a LoRA of rank {adapter.rank} and alpha {adapter.alpha:g}, the file one of rank '
            f'{rank} and alpha {ALPHA:g}. Give --config a config with model.backbone.adapter=dict(rank={rank}, '
            f'alpha={ALPHA:g}).'
        )


def run(arguments: argparse.Namespace) -> int:
    """Converts and prints what was used, what was left out and why.

    Raises:
        RassError: nothing is written.
    """

    def build(base: Path, rank: int) -> Any:
        init_default_scope('mmseg')
        config = load_config(arguments.config, {'model.backbone.base': str(base)})
        if config.model.get('type') != 'RASS':
            raise ConfigError(
                f'--config {arguments.config} is of a {config.model.get("type")}; one of a RASS is needed.'
            )
        check_adapter(AdapterSpec(**(config.model.backbone.get('adapter') or {})), rank, arguments.config)
        # Names and shapes are wanted; a tagger, which they do not depend on, may not be installed.
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
