"""Registers the prompts and taggers of `rass_mm.diffusion` with mmseg, and builds them from configs."""

from collections.abc import Sequence
from typing import Any

from mmseg.registry import MODELS
from torch import nn

from rass_mm.diffusion.base import DiffusionBase
from rass_mm.diffusion.prompts import ClassTokens, EmptyPrompt, GroundTruthTagger, TagPrompt
from rass_mm.diffusion.ram import RAMTagger

for module in (ClassTokens, EmptyPrompt, TagPrompt, GroundTruthTagger, RAMTagger):
    MODELS.register_module(module=module)


def build_prompt(config: dict[str, Any], base: DiffusionBase, names: Sequence[str]) -> nn.Module:
    """Builds a prompt from its config; a nested `tagger` config is built with the same class names."""
    config = {**config, 'base': base, 'classes': names}
    if isinstance(config.get('tagger'), dict):
        config['tagger'] = MODELS.build({'classes': names, **config['tagger']})
    return MODELS.build(config)
