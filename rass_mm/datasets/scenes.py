"""Synthetic scenes of drawn objects as an mmseg data set."""

from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

SCENE_CLASSES = (
    'sky',
    'grass',
    'road',
    'sidewalk',
    'building',
    'tree',
    'car',
    'person',
    'pole',
    'fence',
    'water',
    'mountain',
)
"""Class names of the scenes; labels are indices into them."""
PALETTE = (
    (70, 130, 180),
    (152, 251, 152),
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (107, 142, 35),
    (0, 0, 142),
    (220, 20, 60),
    (153, 153, 153),
    (190, 153, 153),
    (61, 230, 250),
    (143, 140, 120),
)
"""RGB colour of each class, 0..255."""


@DATASETS.register_module()
class ScenesDataset(BaseSegDataset):
    """Synthetic scenes written by `rass_mm.demo.scenes.generator.write_scenes`.

    Images and labels are PNG files in `img_dir/{split}` and `ann_dir/{split}`. Every pixel has a class. The ignored id
    255 occurs only where a pipeline pads an image.
    """

    METAINFO = dict(classes=SCENE_CLASSES, palette=[list(colour) for colour in PALETTE])

    def __init__(self, img_suffix: str = '.png', **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)
