"""Puts the core's prompts and taggers into mmseg's registry."""

from mmseg.registry import MODELS

from rass_mm.diffusion.prompts import ClassTokens, EmptyPrompt, GroundTruthTagger, TagPrompt
from rass_mm.diffusion.ram import RAMTagger

for module in (ClassTokens, EmptyPrompt, TagPrompt, GroundTruthTagger, RAMTagger):
    MODELS.register_module(module=module)
