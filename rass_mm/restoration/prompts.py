"""Registration of the diffusion core's prompts with mmagic, under their class names."""

from mmagic.registry import MODELS

from rass_mm.diffusion.prompts import ClassTokens, EmptyPrompt, GroundTruthTagger, TagPrompt
from rass_mm.diffusion.ram import RAMTagger

for _part in (ClassTokens, EmptyPrompt, TagPrompt, GroundTruthTagger, RAMTagger):
    MODELS.register_module(module=_part)
