"""Data sets and loading transforms, registered with mmseg."""

from rass_mm.datasets.ade20k_lq import ADE20KLQDataset, RealLQDataset
from rass_mm.datasets.camvid import CamVidDataset
from rass_mm.datasets.loading import KeepCleanImage, LoadCleanImage, LoadImageStrict, LoadLabelStrict
from rass_mm.datasets.scenes import ScenesDataset

__all__ = [
    'ADE20KLQDataset',
    'CamVidDataset',
    'KeepCleanImage',
    'LoadCleanImage',
    'LoadImageStrict',
    'LoadLabelStrict',
    'RealLQDataset',
    'ScenesDataset',
]
