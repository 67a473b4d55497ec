"""Degraded ADE20K and RealLQ as mmseg data sets, with the classes and palette of ADE20K."""

from typing import Any

from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS

from rass_mm.datasets.reallq_layout import IMAGES, chosen_labels, layout_of


@DATASETS.register_module()
class ADE20KLQDataset(ADE20KDataset):
    """Degraded copy of ADE20K's images, in PNG as written by `rass-mm make-lq`, with ADE20K's labels.

    Label ids are 0 for background, which is ignored, and 1 to 150 for the classes.
    """

    def __init__(self, img_suffix: str = '.png', **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)


@DATASETS.register_module()
class RealLQDataset(ADE20KDataset):
    """RealLQ: real low-quality photos labelled with ADE20K's 150 classes.

    In its folder `ADEChallengeData2016`, images are `images/validation/*.jpg`. Labels are read from the first of these
    folders that contains any: `annotations_detectron2/validation/*.png` (ids 0 to 149, 255 is ignored), as in the
    released code, or `annotations/validation/*.png` (ids 1 to 150, 0 is ignored), as in ADE20K.

    Args:
        data_root: the folder that contains images and labels.
        data_prefix: `img_path` and `seg_map_path` below it. If `seg_map_path` is None or missing, the folders above are
            searched.
        reduce_zero_label: whether id 0 is ignored and id k is class k - 1. None derives it from the label folder.
        seg_map_suffix: suffix of label files.
        kwargs: other arguments of mmseg's data set.

    Raises:
        DataError: there are no labels, or their ids cannot be derived from the folder name.
    """

    def __init__(
        self,
        data_root: str | None = None,
        data_prefix: dict[str, str | None] | None = None,
        reduce_zero_label: bool | None = None,
        seg_map_suffix: str = '.png',
        **kwargs: Any,
    ) -> None:
        given = {'img_path': IMAGES, 'seg_map_path': None, **(data_prefix or {})}
        labels, reduced = chosen_labels(data_root, given['seg_map_path'], reduce_zero_label, seg_map_suffix)
        self.label_layout = layout_of(labels)
        super().__init__(
            data_root=data_root,
            data_prefix={**given, 'seg_map_path': labels},
            reduce_zero_label=reduced,
            seg_map_suffix=seg_map_suffix,
            **kwargs,
        )
