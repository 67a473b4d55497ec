"""Confidence of a label map: the probability of the predicted label of each pixel."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from rass_mm.labelling.bands import Labels

Probability = Callable[[Tensor], Tensor]
"""Maps logits (K, h, w) to the probability (h, w) of the predicted label."""
Watch = Callable[[float], None]
"""Function that is called with the finished fraction of an image, in [0, 1]."""


def confidence(logits: Tensor) -> Tensor:
    """Computes the confidence of each pixel: the probability of its predicted class.

    Args:
        logits: (K, H, W) float; a single channel is the logit of class 1 against class 0.

    Returns:
        (H, W) float32 in [0, 1].
    """
    if logits.shape[0] == 1:
        positive = logits[0].float().sigmoid()
        return torch.maximum(positive, 1 - positive)
    # The probability of the largest logit, without a (K, H, W) copy of all probabilities.
    return (logits.amax(0).float() - logits.float().logsumexp(0)).exp()


def probability_from(scores: bool, threshold: float | None) -> Probability:
    """Returns the function that computes the probability of the predicted label from logits.

    For heads that classify pixels, the probability is the maximum of the softmax over the classes. For a single channel
    with sigmoid p, it is p where class 1 is predicted and 1 - p elsewhere. Heads that classify masks (MaskFormer,
    Mask2Former) return scores instead of logits: one sum of mask probabilities per class. For these heads, the
    probability is the largest score divided by the sum of all scores.

    Args:
        scores: whether the logits are such scores.
        threshold: probability above which a single channel predicts class 1; None for several channels.
    """
    if scores:
        return lambda scores: scores.amax(0) / scores.sum(0).clamp(min=1e-12)
    if threshold is not None:
        return lambda logits: _of_sigmoid(logits[0].sigmoid(), threshold)
    return confidence


def _of_sigmoid(probability: Tensor, threshold: float) -> Tensor:
    return of_label(probability, probability > threshold)


def of_label(probability: Tensor, positive: Tensor) -> Tensor:
    """Returns the probability of each label, given that of class 1 and where class 1 is predicted, all (h, w)."""
    return torch.where(positive, probability, 1 - probability)


def eight_bits(probability: Tensor) -> Tensor:
    """Scales probabilities to 0..255, uint8."""
    return probability.clamp(0, 1).mul(255).round().to(torch.uint8)


class ConfidentLabels(Labels):
    """`Labels` that also keeps the 8-bit confidence of each pixel, if `probability` is set."""

    probability: Probability | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.confidences: list[Tensor] = []

    def _decided(self, logits: Tensor) -> Tensor:
        if self.probability is not None:
            self.confidences.append(eight_bits(self.probability(logits)))
        return super()._decided(logits)

    def confidence(self) -> Tensor | None:
        """Returns the confidence (H, W), uint8, or None if `probability` is not set."""
        return torch.cat(self.confidences) if self.confidences else None


def labels_of(
    bands: Iterable[Tensor],
    size: tuple[int, int],
    meta: dict[str, Any],
    align_corners: bool = False,
    threshold: float | None = None,
    probability: Probability | None = None,
    watch: Watch | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Computes the label map of one image from its logits in bands of rows.

    Args:
        bands: consecutive rows (1, K, h, W) of the logits.
        size: (H, W) of the logits.
        meta: meta information of the image, see `Labels`.
        align_corners: as in `F.interpolate`.
        threshold: probability above which a single channel predicts class 1; None for several channels.
        probability: computes the confidence; None for a label map alone.
        watch: function that is called with the finished fraction of the image, or None.

    Returns:
        The labels (H, W), and the confidences (H, W) as uint8, or None.
    """
    labels = ConfidentLabels(size, meta, align_corners, threshold)
    labels.probability = probability
    for band in bands:
        labels.add(band[0])
        if watch:
            watch(labels.seen / size[0])
    return labels.finished()[0], labels.confidence()
