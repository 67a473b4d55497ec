"""Segmentation and restoration of image files of any size and number.

What restores depends on torch, NumPy, OpenCV, Pillow and the diffusion core, but not on mmseg or mmagic. The modules
that segment (`loading`, `segmentor`, `segment`, `labelling`, `modes`, `classes`) also depend on mmseg, and `photos` on
mmcv. They are not imported here.
"""

from rass_mm.inference.folder import RestoreSummary, restore_files
from rass_mm.inference.restore import RestoreOptions, restore_image

__all__ = ['RestoreOptions', 'RestoreSummary', 'restore_files', 'restore_image']
