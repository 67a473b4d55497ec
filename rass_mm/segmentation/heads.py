"""mmseg's Mask2Former head and mmdet's pixel decoder, computed in float32 where half precision fails."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from rass_mm.segmentation.rows import Rows, resized_rows


@MODELS.register_module()
class Float32PixelDecoder(MSDeformAttnPixelDecoder):
    """Multi-scale deformable pixel decoder without autocast, because mmcv's CUDA operator has no bfloat16 kernel."""

    def forward(self, feats: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Computes mask features and multi-scale features in float32 from (B, C, H/s, W/s) maps, finest first."""
        with torch.autocast(feats[0].device.type, enabled=False):
            return super().forward([feat.float() for feat in feats])


@MODELS.register_module()
class RASSMask2FormerHead(Mask2FormerHead):
    """Mask2Former head that computes matching and losses in float32 under AMP, and logits a few rows at a time."""

    def loss_by_feat(self, all_cls_scores: Any, all_mask_preds: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Computes mmdet's losses in float32. In half precision, costs can be NaN, and the Hungarian matcher fails."""
        with torch.autocast(all_cls_scores[0].device.type, enabled=False):
            scores, masks = ([value.float() for value in values] for values in (all_cls_scores, all_mask_preds))
            return super().loss_by_feat(scores, masks, *args, **kwargs)

    def rows(self, features: Sequence[Tensor], metas: list[dict], size: tuple[int, int]) -> Rows:
        """Returns a function that computes any rows of the logits that `predict` returns, see `rows.head_rows`.

        Args:
            features: (B, C, H/s, W/s), finest first.
            metas: meta information of each image.
            size: (H, W) of the input image.
        """
        scores, masks = (stages[-1] for stages in self(features, [SegDataSample(metainfo=meta) for meta in metas]))
        classes = scores.softmax(-1)[..., :-1]

        def rows(top: int, bottom: int) -> Tensor:
            inside = resized_rows(masks, size, top, bottom).sigmoid()
            return torch.einsum('bqc,bqhw->bchw', classes, inside)

        return rows
