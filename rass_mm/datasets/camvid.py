"""CamVid with its usual eleven classes as an mmseg data set."""

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module('CamVidDataset', force=False)
class CamVidDataset(BaseSegDataset):
    """Street scenes recorded from a car. Labels are 8-bit ids in the order of `METAINFO`; 255 is ignored.

    Degraded copies of the images are PNG files; set `img_suffix='.png'` for them.
    """

    METAINFO = dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign symbol',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )
