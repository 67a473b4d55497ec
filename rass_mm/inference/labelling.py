"""Computes the label map and the confidence of one image with bounded memory, for any mmseg segmentor."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmseg.models.decode_heads import Mask2FormerHead, MaskFormerHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from rass_mm.diffusion.tiling import windows
from rass_mm.inference.modes import ModeChoice
from rass_mm.inference.photo_segmentor import Maps
from rass_mm.labelling.bands import in_bands
from rass_mm.labelling.confidence import Probability, Watch, eight_bits, labels_of, of_label, probability_from
from rass_mm.labelling.sliding import chunked, cut
from rass_mm.segmentation import FileRestorer, RestoreThenSegment
from rass_mm.segmentation.rass import sized

MOST_LOGITS = 2**26
"""Largest number of logits for mmseg's own `predict`: 256 MiB in float32. More logits are computed in bands of rows."""


@torch.no_grad()
def label_image(
    model: nn.Module, data: dict[str, Any], choice: ModeChoice, confidence: bool = False, watch: Watch | None = None
) -> Maps:
    """Segments one image.

    Args:
        model: an mmseg segmentor in eval mode.
        data: dict with `inputs` and `data_samples` from the test pipeline, each a list with one item.
        choice: selects the test settings for the size of the image.
        confidence: whether to compute the confidence.
        watch: function that is called with the finished fraction of the image, or None.
    """
    prepared = model.data_preprocessor(data, False)
    restored = None
    if isinstance(model, RestoreThenSegment):
        with _restoring_windows(model.restorer, choice, tuple(prepared['inputs'][0].shape[-2:])):
            restored = model.restore(prepared['inputs'])[0]
        model = model.segmentor
        prepared = model.data_preprocessor({'inputs': [restored], 'data_samples': prepared['data_samples']}, False)
        restored = restored.permute(1, 2, 0).contiguous().cpu().numpy()
    inputs, samples = prepared['inputs'], prepared['data_samples']
    with _test_settings(model, choice.settings(tuple(inputs.shape[-2:]))):
        labels, confidences = _maps(model, inputs, samples, confidence, watch)
    return Maps(
        labels.cpu().numpy().astype(np.int64, copy=False),
        None if confidences is None else confidences.cpu().numpy(),
        restored,
    )


@contextmanager
def _test_settings(model: nn.Module, settings: Any) -> Iterator[None]:
    before, model.test_cfg = model.test_cfg, settings
    try:
        yield
    finally:
        model.test_cfg = before


@contextmanager
def _restoring_windows(restorer: nn.Module, choice: ModeChoice, size: tuple[int, int]) -> Iterator[None]:
    """Context manager. Inside the block, a `FileRestorer` without a window restores a large image in windows."""
    if not (isinstance(restorer, FileRestorer) and restorer.window is None and choice.is_large(size)):
        yield
        return
    multiple = restorer.restorer.size_multiple
    before = restorer.window, restorer.overlap
    window = -(-max(choice.window) // multiple) * multiple
    restorer.window, restorer.overlap = window, min(max(window // 3 // multiple, 1) * multiple, window - multiple)
    try:
        yield
    finally:
        restorer.window, restorer.overlap = before


def _maps(
    model: nn.Module, inputs: Tensor, samples: list[SegDataSample], confidence: bool, watch: Watch | None
) -> tuple[Tensor, Tensor | None]:
    """Returns the labels (H, W), and the confidences (H, W) as uint8, or None if they are not requested."""
    metas = [sample.metainfo for sample in samples]
    bands = _bands(model, inputs, samples, metas)
    if bands is None:
        return _predicted(model, inputs, samples, confidence)
    threshold = None if model.out_channels > 1 else _head(model).threshold
    probability = probability_of(model) if confidence else None
    return labels_of(bands, tuple(inputs.shape[2:]), metas[0], model.align_corners, threshold, probability, watch)


def _bands(
    model: nn.Module, inputs: Tensor, samples: list[SegDataSample], metas: list[dict]
) -> Iterator[Tensor] | None:
    """Returns the logits in bands of rows.

    Returns None if the model's own `predict` is used. This is the case if the model has no `encode_decode`, or if the
    image has at most `MOST_LOGITS` logits and windows are not processed in batches.
    """
    if hasattr(model, 'logit_bands'):
        return model.logit_bands(inputs, metas, model.prompt(inputs, samples))
    if not (hasattr(model, 'encode_decode') and hasattr(model, 'out_channels')):
        return None
    sizes = (tuple(inputs.shape[-2:]), tuple(metas[0].get('ori_shape', inputs.shape[-2:])[:2]))
    batched = model.test_cfg.get('mode') == 'slide' and model.test_cfg.get('window_batch', 1) > 1
    if not batched and model.out_channels * max(map(math.prod, sizes)) <= MOST_LOGITS:
        return None
    if model.test_cfg.get('mode') == 'slide':
        return _slid(model, inputs, metas)
    logits = model.encode_decode(inputs, sized(metas, inputs))
    return in_bands(lambda top, bottom: logits[..., top:bottom, :], inputs.shape[2])


def _slid(model: nn.Module, inputs: Tensor, metas: list[dict]) -> Iterator[Tensor]:
    """Yields rows of mmseg's sliding-window inference, averaged over windows, once no later window covers them."""
    settings, (height, width) = model.test_cfg, inputs.shape[2:]
    grid = windows((height, width), tuple(settings.crop_size), tuple(settings.stride))
    start, sums = 0, None
    for chunk, done in chunked(grid, settings.get('window_batch', 1), height):
        crops = cut(inputs, chunk)
        parts = model.encode_decode(crops, sized(metas * len(chunk), crops))
        if sums is None:
            sums, counts = (parts.new_zeros((1, channels, 0, width)) for channels in (parts.shape[1], 1))
        missing = max(bottom for _, bottom, *_ in chunk) - start - sums.shape[2]
        if missing > 0:  # padding copies the rows
            sums, counts = F.pad(sums, (0, 0, 0, missing)), F.pad(counts, (0, 0, 0, missing))
        for part, (top, bottom, left, right) in zip(parts, chunk, strict=True):
            sums[..., top - start : bottom - start, left:right] += part
            counts[..., top - start : bottom - start, left:right] += 1
        if done > start:
            yield sums[..., : done - start, :] / counts[..., : done - start, :]
            sums, counts = (kept[..., done - start :, :].clone() for kept in (sums, counts))
            start = done


def _predicted(
    model: nn.Module, inputs: Tensor, samples: list[SegDataSample], confidence: bool
) -> tuple[Tensor, Tensor | None]:
    sample = model.predict(inputs, samples)[0]
    labels = sample.pred_sem_seg.data[0]
    if not confidence:
        return labels, None
    logits = sample.seg_logits.data
    # mmseg stores the probability, not the logit, of a single channel.
    probability = of_label(logits[0], labels > 0) if len(logits) == 1 else probability_of(model)(logits)
    return labels, eight_bits(probability)


def _head(model: nn.Module) -> nn.Module:
    head = model.decode_head
    return head[-1] if isinstance(head, nn.ModuleList) else head


def probability_of(model: nn.Module) -> Probability:
    """Returns the function that computes the probability of the predicted label from the logits of a model.

    See `probability_from`.
    """
    head = _head(model)
    scores = isinstance(head, MaskFormerHead | Mask2FormerHead)
    threshold = head.threshold if getattr(model, 'out_channels', None) == 1 else None
    return probability_from(scores or getattr(head, 'scores', False), threshold)  # an exported head has `scores`
