"""ADE20K's degraded copy and RealLQ as data sets of mmseg; classes and colours are those of ADE20K."""

from typing import Any

from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class ADE20KLQDataset(ADE20KDataset):
    """A degraded copy of ADE20K's images, PNG as `rass-mm make-lq` writes them, with ADE20K's own labels.

    Labels are 0 for background, which is ignored, and 1 to 150 for the classes.
    """

    def __init__(self, img_suffix: str = '.png', **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)


@DATASETS.register_module()
class RealLQDataset(ADE20KDataset):
    """RealLQ, photos that are of low quality by themselves, labelled with ADE20K's 150 classes.

    It ships in ADE20K's layout: below its `ADEChallengeData2016`, images are `images/validation/*.jpg` and labels
    `annotations/validation/*.png`, with ids as in ADE20K.
    """
