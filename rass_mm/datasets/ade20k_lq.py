"""Degraded ADE20K and RealLQ as mmseg data sets, with the classes and palette of ADE20K."""

from typing import Any

from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS

from rass_mm.datasets.reallq_layout import IMAGES, chosen_labels, layout_of


@DATASETS.register_module()
class ADE20KLQDataset(ADE20KDataset):
    """Degraded copy of ADE20K: PNG images written by `rass-mm make-lq`, with the original ADE20K labels.

    In the label files, id 0 is the background, which is ignored, and ids 1 to 150 are the classes.
    """

    def __init__(self, img_suffix: str = '.png', **kwargs: Any) -> None:
        super().__init__(img_suffix=img_suffix, **kwargs)


@DATASETS.register_module()
class RealLQDataset(ADE20KDataset):
    """RealLQ: real low-quality photos labelled with ADE20K's 150 classes.

    The data root is the folder `ADEChallengeData2016` of the archive. Images are `images/validation/*.jpg`. Labels are
    `annotations_detectron2/validation/*.png` (ids 0 to 149, 255 is ignored), as in the released code, or
    `annotations/validation/*.png` (ids 1 to 150, 0 is ignored), as in ADE20K. If both folders contain labels, the one
    with more files is used or, if they have the same number of files, the first one.

    Args:
        data_root: the folder that contains images and labels.
        data_prefix: `img_path` and `seg_map_path`, relative to `data_root`. If `seg_map_path` is None or missing, the
            label folder is selected as described above.
        reduce_zero_label: whether id 0 is ignored and id k is class k - 1. None derives this from the label folder. If
            both folders contain labels, the one that matches the given value is used.
        seg_map_suffix: suffix of the label files.
        kwargs: other arguments of mmseg's `ADE20KDataset`.

    Raises:
        DataError: no labels were found, or `seg_map_path` has another folder name and `reduce_zero_label` is None.
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
