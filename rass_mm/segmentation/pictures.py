"""Hook that shows predictions of validation images in the trackers of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from rass_mm.config.arguments import Count
from rass_mm.files.images import read_picture


@HOOKS.register_module()
class PredictionImagesHook(Hook):
    """Hook that draws the labels and the prediction of the first images of each validation.

    The config's visualizer draws them side by side, as `val_NUMBER_NAME.png`, and its backends store them.

    Args:
        count: number of images.
    """

    def __init__(self, count: Count = 4) -> None:
        self.count = count
        self.drawn = 0

    def before_val_epoch(self, runner: Any) -> None:
        """Starts with the first image again."""
        self.drawn = 0

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Draws images of a batch until there are `count`."""
        if not is_main_process():
            return
        for sample in (outputs or ())[: self.count - self.drawn]:
            image = np.rint(read_picture(sample.img_path).pixels * 255).astype(np.uint8)
            name = f'val_{self.drawn}_{Path(sample.img_path).stem}.png'
            runner.visualizer.add_datasample(name, image, data_sample=sample, step=runner.iter)
            self.drawn += 1
