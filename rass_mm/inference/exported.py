"""Exported segmentor for photos. It needs no library of OpenMMLab."""

from typing import Any

import numpy as np
import torch

from rass_mm.export.exported_segmentor import ExportedSegmentor
from rass_mm.export.metadata import Exported
from rass_mm.inference.modes import ModeChoice, SegmentOptions
from rass_mm.inference.photo_segmentor import Maps, PhotoSegmentor, Watch
from rass_mm.inference.steps import PlainPipeline
from rass_mm.labelling.confidence import labels_of, probability_from


class ExportedPhotoSegmentor(PhotoSegmentor):
    """Exported segmentor with the test pipeline, the class names and the colours of its metadata.

    Args:
        exported: the exported model, of the kind 'segmentor', whose pipeline is plain, see `rass_mm.inference.steps`.
        options: see `SegmentOptions`; None uses its defaults.
    """

    def __init__(self, exported: Exported, options: SegmentOptions | None = None) -> None:
        classes = exported.metadata['classes']
        self.pipeline = PlainPipeline(classes['pipeline'])
        palette = [tuple(color) for color in classes['palette']]
        super().__init__(ExportedSegmentor(exported), classes['names'], palette, options)

    def packed(self, image: np.ndarray, path: str | None) -> dict[str, Any]:
        """Returns the output of the test pipeline for one (H, W, 3) uint8 BGR image, as a batch with one item."""
        return self.pipeline(image, path)

    def _choice(self, options: SegmentOptions) -> ModeChoice:
        return ModeChoice(self.model, options)

    @torch.no_grad()
    def _maps(self, data: dict[str, Any], watch: Watch | None) -> Maps:
        prepared, head = self.model.data_preprocessor(data), self.model.decode_head
        inputs, metas = prepared['inputs'], [sample.metainfo for sample in prepared['data_samples']]
        size = tuple(inputs.shape[2:])
        bands = self.model.logit_bands(inputs, metas, settings=self.choice.settings(size))
        probability = probability_from(head.scores, head.threshold) if self.options.confidence else None
        found = labels_of(bands, size, metas[0], self.model.align_corners, head.threshold, probability, watch)
        labels, confidence = (None if values is None else values.numpy() for values in found)
        return Maps(labels.astype(np.int64, copy=False), confidence, None)
