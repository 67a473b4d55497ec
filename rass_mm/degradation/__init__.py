"""Two-stage recipe for low-quality images: randomly drawn parameters, mmseg transforms, and a data set builder."""

from rass_mm.degradation.transforms import FixedDegradation, LQDegradation

__all__ = ['FixedDegradation', 'LQDegradation']
