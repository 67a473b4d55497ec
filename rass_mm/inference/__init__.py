"""Restoration of image files, of any size and number, with a network that restores windows.

Knows torch, numpy, OpenCV, Pillow and the diffusion core; neither mmseg nor mmagic.
"""

from rass_mm.inference.folder import RestoreSummary, restore_files
from rass_mm.inference.restore import RestoreOptions, restore_image

__all__ = ['RestoreOptions', 'RestoreSummary', 'restore_files', 'restore_image']
