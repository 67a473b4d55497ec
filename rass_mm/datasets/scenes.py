"""The embedded scenes as a data set of mmseg."""

from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from rass_mm.demo.scenes.generator import PALETTE, SCENE_CLASSES


@DATASETS.register_module()
class ScenesDataset(BaseSegDataset):
    """Scenes that `rass_mm.demo.scenes.generator.write_scenes` wrote: `img_dir/{split}` and `ann_dir/{split}`, all PNG.

    Every pixel has a class; 255 appears only where a pipeline pads.
    """

    METAINFO = dict(classes=SCENE_CLASSES, palette=[list(colour) for colour in PALETTE])

    def __init__(
        self, img_suffix: str = '.png', seg_map_suffix: str = '.png', reduce_zero_label: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(
            img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, reduce_zero_label=reduce_zero_label, **kwargs
        )
