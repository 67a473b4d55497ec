"""Networks to export: a prepared segmentor or restorer as a module with one input and one output."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead
from mmseg.models.segmentors import BaseSegmentor
from torch import Tensor, nn

from rass_mm.diffusion.restorer import Restorer
from rass_mm.engine.ready import prepare_part
from rass_mm.errors import ConfigError
from rass_mm.export.metadata import RESTORER, SEGMENTOR
from rass_mm.labelling.sliding import BLENDS
from rass_mm.segmentation import RestoreThenSegment
from rass_mm.segmentation.preprocessing import MIDDLE, RawPadPreProcessor

Size = tuple[int, int]


class SegmentorNetwork(nn.Module):
    """Segmentor as a network from images to logits.

    Args:
        model: an mmseg segmentor.
    """

    def __init__(self, model: BaseSegmentor) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Computes the logits (1, K, h, w) of (1, 3, h, w) normalised images."""
        size = images.shape[2:]
        return self.model.encode_decode(images, [{'img_shape': size, 'pad_shape': size, 'ori_shape': size}])


class RestorerNetwork(nn.Module):
    """Restorer as a network from images to restored images.

    Args:
        restorer: a restorer.
        context: (1, T, C) context tokens. None uses the stored prompt of a prepared restorer.
    """

    def __init__(self, restorer: Restorer, context: Tensor | None = None) -> None:
        super().__init__()
        self.model, self.context = restorer.model, context

    def forward(self, images: Tensor) -> Tensor:
        """Restores (1, 3, h, w) RGB images in [-1, 1]. The result is not clamped."""
        return self.model(images, self.context)


def segmentor_network(model: BaseSegmentor, dtype: str = 'float32') -> SegmentorNetwork:
    """Prepares a segmentor, in place, and returns its network.

    Args:
        model: a segmentor in eval mode on the CPU, not prepared.
        dtype: dtype in which the network computes.

    Raises:
        ConfigError: the model is not a single network from a window to logits.
    """
    _check_segmentor(model)
    prepare_part(model.eval(), getattr(torch, dtype))
    prompt = getattr(model, 'prompt', None)
    if prompt is not None and not getattr(prompt, 'stored', False):
        raise ConfigError(
            f'The prompt of the model ({type(prompt).__name__}) depends on the image, so it cannot be a part of the '
            'exported network. Export a model with the prompt ClassTokens or EmptyPrompt.'
        )
    return SegmentorNetwork(model.requires_grad_(False)).eval()


def _check_segmentor(model: nn.Module) -> None:
    if isinstance(model, RestoreThenSegment):
        raise ConfigError(
            'The model restores images before it segments them (RestoreThenSegment), so it consists of two networks '
            'with windows of their own. Export the restorer and the segmentor, and run rass-mm restore before rass-mm '
            'segment.'
        )
    if not hasattr(model, 'encode_decode'):
        raise ConfigError(f'A {type(model).__name__} cannot be exported, because it has no method encode_decode.')


def restorer_network(restorer: Restorer, dtype: str = 'float32') -> RestorerNetwork:
    """Prepares a restorer on the CPU, in place, and returns its network, which computes in `dtype`."""
    prepare_part(restorer.eval(), getattr(torch, dtype))
    return RestorerNetwork(restorer.requires_grad_(False)).eval()


@torch.no_grad()
def expected_output(model: BaseSegmentor | Restorer, size: Size) -> np.ndarray:
    """Computes what a network has to return for `example_window(size)`, with the model as it was trained.

    Args:
        model: a segmentor or a restorer on the CPU in float32, not prepared.
        size: height and width of the window.

    Returns:
        (1, C, h, w) float32.
    """
    images = example_window(size)
    if isinstance(model, Restorer):
        return RestorerNetwork(model, model._prompt(images).conditioning).eval()(images).numpy()
    _check_segmentor(model)
    return SegmentorNetwork(model).eval()(images).numpy()


def example_window(size: Size, seed: int = 0) -> Tensor:
    """Returns a smooth random window with noise, (1, 3, h, w) float32 in [-1, 1], to trace and compare networks."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 3, 8, 8), generator=random) * 2 - 1
    smooth = F.interpolate(coarse, size, mode='bilinear', align_corners=False)
    return (smooth + 0.1 * torch.randn((1, 3, *size), generator=random)).clamp(-1, 1)


def segmentor_facts(
    model: BaseSegmentor,
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
    pipeline: Sequence[Mapping[str, Any]],
    stride: Size,
) -> dict[str, Any]:
    """Returns the entries of the metadata that describe a segmentor.

    Args:
        model: the segmentor, not prepared.
        names: name of each class.
        palette: RGB colour of each class.
        pipeline: configs of the steps of its test pipeline.
        stride: vertical and horizontal distance between windows.

    Raises:
        ConfigError: the preprocessor or the blending of the model is not supported.
    """
    head = model.decode_head[-1] if isinstance(model.decode_head, nn.ModuleList) else model.decode_head
    blend = model.test_cfg.get('blend', 'mean')
    if blend not in BLENDS:
        raise ConfigError(f'test_cfg.blend is {blend!r}; expected one of {", ".join(BLENDS)}.')
    return {
        'kind': SEGMENTOR,
        'model': type(model).__name__,
        'stride': list(stride),
        'preprocessing': _preprocessing(model.data_preprocessor),
        'classes': {
            'names': list(names),
            'palette': [list(map(int, color)) for color in palette],
            'threshold': float(head.threshold) if model.out_channels == 1 else None,
            'scores': isinstance(head, MaskFormerHead | Mask2FormerHead),
            'align_corners': bool(model.align_corners),
            'blend': blend,
            'pipeline': [dict(step) for step in pipeline],
        },
    }


def _preprocessing(preprocessor: nn.Module) -> dict[str, Any]:
    if not isinstance(preprocessor, SegDataPreProcessor):
        raise ConfigError(
            f'The data preprocessor is a {type(preprocessor).__name__}, but only SegDataPreProcessor and its '
            'subclasses can be exported. Set model.data_preprocessor.type.'
        )
    test = preprocessor.test_cfg or {}
    if test.get('size'):
        raise ConfigError(
            f'The data preprocessor pads test images to test_cfg.size={test["size"]}, which exported models do not '
            'support. Set model.data_preprocessor.test_cfg=dict(size_divisor=N), or None.'
        )
    mean, std = [0.0] * 3, [1.0] * 3
    if preprocessor._enable_normalize:
        mean, std = (getattr(preprocessor, name).flatten().tolist() for name in ('mean', 'std'))
    padding = [float(preprocessor.pad_val)] * 3
    if isinstance(preprocessor, RawPadPreProcessor):
        padding = [(preprocessor.raw_pad_val - m) / s for m, s in zip(mean, std, strict=True)]
    return {
        'channels': 'RGB' if preprocessor.channel_conversion else 'BGR',
        'mean': mean,
        'std': std,
        'padding': padding,
        'multiple': test.get('size_divisor') or 1,  # mmseg uses `preprocessor.size_divisor` in training only
    }


def restorer_facts(restorer: Restorer, stride: Size) -> dict[str, Any]:
    """Returns the entries of the metadata that describe a restorer.

    Args:
        restorer: the restorer, not prepared.
        stride: vertical and horizontal distance between windows.
    """
    return {
        'kind': RESTORER,
        'model': type(restorer.model).__name__,
        'stride': list(stride),
        'preprocessing': {
            'channels': 'RGB',
            'mean': [MIDDLE] * 3,
            'std': [MIDDLE] * 3,
            'padding': None,
            'multiple': restorer.size_multiple,
        },
    }
