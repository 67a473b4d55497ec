"""The two-stage low-quality recipe: as drawn parameters, as a transform, and as a data set builder."""

from rass_mm.degradation.transforms import FixedDegradation, LQDegradation

__all__ = ['FixedDegradation', 'LQDegradation']
