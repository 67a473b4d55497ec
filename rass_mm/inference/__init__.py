"""Segmentation and restoration of image files of any size and number.

What restores depends on torch, NumPy, OpenCV, Pillow and the diffusion core, but not on mmseg or mmagic. What segments
(`segmentor`, `segment`, `labelling`, `modes`, `classes`) also depends on mmseg, `photos` on mmcv; these are imported on
their own.
"""

from rass_mm.inference.folder import RestoreSummary, restore_files
from rass_mm.inference.restore import RestoreOptions, restore_image

__all__ = ['RestoreOptions', 'RestoreSummary', 'restore_files', 'restore_image']
