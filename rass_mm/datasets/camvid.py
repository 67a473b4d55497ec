"""CamVid with its usual eleven classes as an mmseg data set."""

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module('CamVidDataset', force=False)
class CamVidDataset(BaseSegDataset):
    """CamVid: street scenes recorded from a car, labelled with eleven classes.

    Label files contain 8-bit indices into `METAINFO['classes']`; 255 is ignored. Set `img_suffix='.png'` for degraded
    copies of the images, which are PNG files.
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
