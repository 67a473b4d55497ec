"""Conversions between tensors and mmagic's data samples: labels of a batch, and images in mmagic's format."""

from collections.abc import Sequence

import torch
from mmagic.structures import DataSample
from torch import Tensor


def labels_of(data_samples: Sequence[DataSample] | None, device: torch.device) -> Tensor | None:
    """Returns the labels of a batch as (B, H, W) class ids, or None if a sample has no labels."""
    if not data_samples or any('gt_sem_seg' not in sample for sample in data_samples):
        return None
    return torch.stack([sample.gt_sem_seg.data.squeeze(0) for sample in data_samples]).to(device)


def to_bgr(image: Tensor) -> Tensor:
    """Converts (3, H, W) RGB in [-1, 1] to mmagic's image format: clamped BGR in 0..255 on the CPU."""
    return ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).flip(0)
