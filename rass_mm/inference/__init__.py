"""Restoration of image files of any size and number with a network that restores windows.

Depends on torch, NumPy, OpenCV, Pillow and the diffusion core, but not on mmseg or mmagic.
"""

from rass_mm.inference.folder import RestoreSummary, restore_files
from rass_mm.inference.restore import RestoreOptions, restore_image

__all__ = ['RestoreOptions', 'RestoreSummary', 'restore_files', 'restore_image']
