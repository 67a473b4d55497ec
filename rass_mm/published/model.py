"""RASS model of a config, whose names and shapes a converted file must match. It needs mmseg."""

from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from rass_mm.config import load_config
from rass_mm.diffusion.adapters import AdapterSpec
from rass_mm.errors import ConfigError
from rass_mm.published.lora import ALPHA


def check_adapter(adapter: AdapterSpec, rank: int, config: str) -> None:
    """Raises a ConfigError if the LoRA rank or alpha of a config differs from that of the published file."""
    if (adapter.rank, adapter.alpha) != (rank, ALPHA):
        raise ConfigError(
            f'{config} has a LoRA of rank {adapter.rank} and alpha {adapter.alpha:g}, but the file has rank '
            f'{rank} and alpha {ALPHA:g}. Set --config to a config with model.backbone.adapter=dict(rank={rank}, '
            f'alpha={ALPHA:g}).'
        )


def build_model(name: str, base: Path, rank: int) -> nn.Module:
    """Builds the RASS model of a config on the meta device.

    Args:
        name: config file, or name of a shipped config.
        base: the base folder.
        rank: LoRA rank of the published file.

    Raises:
        ConfigError: the model is no RASS model, or its LoRA is not that of the file.
    """
    init_default_scope('mmseg')
    config = load_config(name, {'model.backbone.base': str(base)})
    if config.model.get('type') != 'RASS':
        raise ConfigError(
            f'--config {name} has a model of type {config.model.get("type")}, but RASS is required. Choose the config '
            'of a RASS model.'
        )
    check_adapter(AdapterSpec(**(config.model.backbone.get('adapter') or {})), rank, name)
    # Only names and shapes are needed. They do not depend on the tagger, which may not be installed.
    config.model.prompt = {'type': 'EmptyPrompt'}
    with torch.device('meta'):
        return MODELS.build(config.model)
