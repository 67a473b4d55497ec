"""Puts the core's prompts and taggers into mmseg's registry."""

from mmseg.registry import MODELS

from rass_mm.diffusion.prompts import ClassTokens, EmptyPrompt, GroundTruthTagger, TagPrompt

for module in (ClassTokens, EmptyPrompt, TagPrompt, GroundTruthTagger):
    MODELS.register_module(module=module)
