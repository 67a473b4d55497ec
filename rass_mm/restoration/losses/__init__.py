"""Loss modules of SCR, registered with mmagic."""

from rass_mm.restoration.losses.perceptual import LPIPSLoss
from rass_mm.restoration.losses.semantic_constraint import SemanticConstraintLoss, attention_ratio
from rass_mm.restoration.losses.vsd import VSDLoss

__all__ = ['LPIPSLoss', 'SemanticConstraintLoss', 'VSDLoss', 'attention_ratio']
