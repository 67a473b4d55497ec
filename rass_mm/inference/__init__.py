"""Segmentation and restoration of image files of any size and number.

The modules for restoration depend on torch, NumPy, OpenCV, Pillow and `rass_mm.diffusion`, but not on mmseg or mmagic.
The modules for segmentation (`loading`, `segmentor`, `segment`, `labelling`, `modes`, `classes`) also depend on mmseg,
and `photos` and `restorer` depend on mmcv. This file imports none of the modules that need mmseg or mmcv.
"""

from rass_mm.inference.folder import RestoreSummary, restore_files
from rass_mm.inference.restore import RestoreOptions, restore_image

__all__ = ['RestoreOptions', 'RestoreSummary', 'restore_files', 'restore_image']
