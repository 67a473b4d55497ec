"""Registers the prompts and taggers of `rass_mm.diffusion` with mmagic."""

from mmagic.registry import MODELS

from rass_mm.diffusion.prompts import ClassTokens, EmptyPrompt, GroundTruthTagger, TagPrompt
from rass_mm.diffusion.ram import RAMTagger

for _part in (ClassTokens, EmptyPrompt, TagPrompt, GroundTruthTagger, RAMTagger):
    MODELS.register_module(module=_part)
