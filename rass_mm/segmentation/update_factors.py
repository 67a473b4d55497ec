"""Factors that make the mean of losses over the batches of an update equal to the losses of one large batch.

Some losses are sums over labelled pixels or segments, divided by their number in the batch. With accumulated gradients,
the divisor must be that of all batches of the update. The number depends on labels only, so it is known beforehand.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmseg.models.decode_heads import Mask2FormerHead
from torch import Tensor, nn

SHARED = ('loss_mask', 'loss_dice')
"""Losses whose divisor is averaged over the processes by the head itself."""


def update_factors(heads: Mapping[str, nn.Module], batches: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Computes the factors of the losses of each batch of an update.

    Supported are mmseg's cross-entropy with `avg_non_ignore` and without class weights, and the losses of Mask2Former.
    Other losses have no factor.

    Args:
        heads: prefix of the losses of a head, e.g. 'decode' -> the head.
        batches: the batches of this process as from the data loader, with labels in `data_samples`.

    Returns:
        For each batch, the prefix and the name of a loss, e.g. 'decode.loss_ce' -> its factor.
    """
    rows = [
        {f'{prefix}.{name}': count for prefix, head in heads.items() for name, count in divisors(head, labels).items()}
        for labels in ([sample.gt_sem_seg.data for sample in batch['data_samples']] for batch in batches)
    ]
    if not rows or not rows[0]:
        return [{} for _ in batches]
    own = torch.tensor([list(row.values()) for row in rows], dtype=torch.float64)
    mean = own.clone()
    all_reduce(mean, op='mean')  # in place, over all processes
    shared = torch.tensor([name.rpartition('.')[2] in SHARED for name in rows[0]])
    used = torch.where(shared, mean.clamp(min=1), own)
    whole = mean.mean(0)
    factors = torch.where(whole > 0, used / whole.clamp(min=1e-12), torch.ones_like(used))
    return [dict(zip(rows[0], factor, strict=True)) for factor in factors.tolist()]


def weighted(losses: Mapping[str, Tensor], factors: Mapping[str, float]) -> dict[str, Tensor]:
    """Multiplies the losses of a batch by their factors, also those of further layers, e.g. 'decode.d0.loss_cls'."""
    names = {name: f'{name.partition(".")[0]}.{name.rpartition(".")[2]}' for name in losses}
    return {name: value * factors.get(names[name], 1) for name, value in losses.items()}


def divisors(head: nn.Module, labels: Sequence[Tensor]) -> dict[str, float]:
    """Returns the number by which each loss of a head is divided in a batch, up to a constant.

    Args:
        head: a decode head.
        labels: (1, H, W) class ids of each image.
    """
    if isinstance(head, Mask2FormerHead):
        return _of_segments(head, labels)
    losses: Iterable[nn.Module] = getattr(head, 'loss_decode', None) or ()
    losses = [losses] if isinstance(losses, nn.Module) and not isinstance(losses, nn.ModuleList) else losses
    counted = [loss for loss in losses if getattr(loss, 'avg_non_ignore', False) and loss.class_weight is None]
    pixels = sum(int((label != head.ignore_index).sum()) for label in labels)
    return {loss.loss_name: float(pixels) for loss in counted}


def _of_segments(head: Mask2FormerHead, labels: Sequence[Tensor]) -> dict[str, float]:
    """Returns the number of segments, and the sum of the class weights of all queries."""
    weights = torch.tensor(head.class_weight, dtype=torch.float64)
    segments, classes = 0, 0.0
    for label in labels:
        found = label.unique()
        found = found[found != head.ignore_index].long()
        matched = min(len(found), head.num_queries)
        segments += matched
        classes += float(weights[found].sum()) * matched / max(len(found), 1)
        classes += float(weights[-1]) * (head.num_queries - matched)
    return {'loss_mask': float(segments), 'loss_dice': float(segments), 'loss_cls': classes}
