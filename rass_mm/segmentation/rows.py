"""Logits of decode heads, a few rows at a time, see `rass_mm.labelling.bands`."""

from collections.abc import Sequence
from typing import Any

from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from rass_mm.labelling.bands import Rows, resized_rows
from rass_mm.segmentation.head_inputs import explained_inputs


def head_rows(
    head: nn.Module, features: Sequence[Tensor], metas: list[dict], size: tuple[int, int], test_cfg: Any
) -> Rows:
    """Returns a function that computes rows of a decode head's logits at the size of the input image.

    Args:
        head: any mmseg decode head. A method `rows(features, metas, size)` of the head is used if it exists. A head
            that inherits `predict` and `predict_by_feat` from mmseg's base class runs once, and its output is resized
            a few rows at a time. Any other head computes all rows at once.
        features: (B, C, H/s, W/s) inputs of the head, finest first.
        metas: meta information of each image.
        size: (H, W) of the input image.
        test_cfg: `test_cfg` of the segmentor, which is passed to `head.predict`.
    """
    if hasattr(head, 'rows'):
        return head.rows(features, metas, size)
    kept = type(head).predict is BaseDecodeHead.predict and type(head).predict_by_feat is BaseDecodeHead.predict_by_feat
    if kept:
        with explained_inputs(head, features):
            coarse = head.forward(features)
        return lambda top, bottom: resized_rows(coarse, size, top, bottom, head.align_corners)
    logits = head.predict(features, metas, test_cfg)
    return lambda top, bottom: logits[..., top:bottom, :]
