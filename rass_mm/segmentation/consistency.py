"""KL divergence between the class probabilities of clean and degraded images, for mmseg's decode heads."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import Mask2FormerHead
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from rass_mm.segmentation.head_inputs import explained_inputs

SMALLEST = 1e-6
"""Score that is added to each class score of Mask2Former, so that its logarithm is finite."""


def supports_kl(head: nn.Module) -> bool:
    """Returns whether `losses_and_probabilities` supports a decode head.

    These are mmseg's Mask2Former head, and heads that inherit `loss` and `loss_by_feat` from mmseg's `BaseDecodeHead`,
    which return one map of logits.
    """
    kind = type(head)
    if isinstance(head, Mask2FormerHead):
        return kind.loss is Mask2FormerHead.loss
    return (
        isinstance(head, BaseDecodeHead)
        and kind.loss is BaseDecodeHead.loss
        and kind.loss_by_feat is BaseDecodeHead.loss_by_feat
    )


def losses_and_probabilities(
    head: Any, features: Sequence[Tensor], samples: list[SegDataSample]
) -> tuple[dict[str, Tensor], Tensor]:
    """Runs a decode head once, and computes its losses and the logarithm of its class probabilities.

    Args:
        head: a decode head for which `supports_kl` is True.
        features: (B, C, H/s, W/s) inputs of the head, finest first.
        samples: the labels of each image.

    Returns:
        The losses by name, as the head's `loss` returns them, and the log-probabilities (B, K, h, w) in float32 at the
        resolution of the head's output. A head with a single class has K = 2.
    """
    with explained_inputs(head, features):
        if isinstance(head, Mask2FormerHead):
            instances, metas = head._seg_data_to_instance_data(samples)
            scores, masks = head(features, samples)
            losses = head.loss_by_feat(scores, masks, instances, metas)
            return losses, query_log_probabilities(scores[-1], masks[-1])
        logits = head.forward(features)
        return head.loss_by_feat(logits, samples), log_probabilities(logits)


def log_probabilities(logits: Tensor) -> Tensor:
    """Computes log-probabilities (B, K, h, w) in float32 from logits.

    Args:
        logits: (B, K, h, w); a single channel is the logit of class 1 against class 0, and the result has both classes.
    """
    logits = logits.float()
    if logits.shape[1] == 1:
        return F.logsigmoid(torch.cat([-logits, logits], 1))
    return logits.log_softmax(1)


def query_log_probabilities(scores: Tensor, masks: Tensor) -> Tensor:
    """Computes log-probabilities (B, K, h, w) in float32 from the queries of Mask2Former.

    The scores of the classes are those of a prediction: for each class, the sum over the queries of class probability
    times mask probability. They are divided by their sum over the classes. A softmax of such scores, which are mostly
    between 0 and 1, would be almost uniform for many classes.

    Args:
        scores: (B, Q, K + 1) class logits of Q queries; the last class is 'no object'.
        masks: (B, Q, h, w) mask logits.
    """
    with torch.autocast(scores.device.type, enabled=False):
        classes = scores.float().softmax(-1)[..., :-1]
        found = torch.einsum('bqc,bqhw->bchw', classes, masks.float().sigmoid()) + SMALLEST
        return found.log() - found.sum(1, keepdim=True).log()


def kl_divergence(clean: Tensor, degraded: Tensor) -> Tensor:
    """Computes the mean over images and pixels of KL(clean || degraded), as a scalar.

    The clean side is detached, so the gradient only changes the prediction for the degraded image.

    Args:
        clean: (B, K, h, w) log-probabilities of the clean images.
        degraded: (B, K, h, w) log-probabilities of the degraded images.
    """
    divergence = F.kl_div(degraded, clean.detach(), reduction='none', log_target=True)
    return divergence.sum(1).mean()
