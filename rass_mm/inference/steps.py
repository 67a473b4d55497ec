"""Test pipeline of an exported segmentor, without mmcv: the steps of the usual pipelines of mmseg.

Other steps need mmseg. `is_plain` tells whether a pipeline has none of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

LOADING = ('LoadImageFromFile', 'LoadImageStrict')
OPTIONS: dict[str, set[str]] = {
    **dict.fromkeys(LOADING, {'to_float32', 'imdecode_backend', 'color_type', 'ignore_empty'}),
    **dict.fromkeys(('LoadAnnotations', 'LoadLabelStrict'), {'reduce_zero_label', 'num_classes', 'imdecode_backend'}),
    'Resize': {'scale', 'keep_ratio'},
    'PackSegInputs': {'meta_keys'},
}
"""Name of each step -> its settings. Labels are not loaded, so the settings of their steps have no effect."""
PACKING = 'PackSegInputs'
VALUES = {'imdecode_backend': 'cv2', 'color_type': 'color'}
"""Settings of a step that loads images, with the only value that is supported here."""


class Sample:
    """Meta information of an image, with the interface of mmseg's `SegDataSample` that exported segmentors use.

    Args:
        metainfo: the meta information.
    """

    def __init__(self, **metainfo: Any) -> None:
        self.metainfo = metainfo

    def set_metainfo(self, values: Mapping[str, Any]) -> None:
        """Adds meta information."""
        self.metainfo.update(values)


def is_plain(steps: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether `PlainPipeline` supports these configs of steps."""
    names = [_name(step) for step in steps]
    return names[-1:] == [PACKING] and PACKING not in names[:-1] and all(map(_is_plain, steps))


def _name(step: Mapping[str, Any]) -> str:
    return step['type'].removeprefix('mmseg.')


def _is_plain(step: Mapping[str, Any]) -> bool:
    name = _name(step)
    if name not in OPTIONS or not set(step) <= {'type', *OPTIONS[name]}:
        return False
    if name == 'Resize':
        return _is_scale(step.get('scale'))
    return name not in LOADING or all(step.get(key, value) == value for key, value in VALUES.items())


def _is_scale(scale: Any) -> bool:
    sides = scale if isinstance(scale, list | tuple) else (scale, scale)
    return len(sides) == 2 and all(isinstance(side, int) and 0 < side <= 2**16 for side in sides)


class PlainPipeline:
    """Test pipeline that resizes images and packs them, with the results of mmseg's steps of the same names.

    Args:
        steps: configs of the steps, see `is_plain`.
    """

    def __init__(self, steps: Sequence[Mapping[str, Any]]) -> None:
        self.to_float32 = any(step.get('to_float32') for step in steps if _name(step) in LOADING)
        self.resizes = [step for step in steps if _name(step) == 'Resize']

    def __call__(self, image: np.ndarray, path: str | None) -> dict[str, Any]:
        """Returns a batch with one image.

        Args:
            image: (H, W, 3) uint8 BGR.
            path: path of the image file, or None.

        Returns:
            `inputs`, a list with one (3, h, w) tensor, and `data_samples`, a list with its meta information.
        """
        sample = Sample(img_path=path, ori_shape=image.shape[:2])
        image = image.astype(np.float32) if self.to_float32 else image
        for step in self.resizes:
            size = resized_size(image.shape[:2], step['scale'], step.get('keep_ratio', False))
            image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
        sample.set_metainfo({'img_shape': image.shape[:2]})
        return {'inputs': [_packed(image)], 'data_samples': [sample]}


def resized_size(size: tuple[int, int], scale: int | Sequence[int], keep_ratio: bool) -> tuple[int, int]:
    """Returns the height and the width after mmcv's `Resize`.

    Args:
        size: height and width of the image.
        scale: width and height; with `keep_ratio`, the largest long and short side, in any order. One number is both.
        keep_ratio: whether the ratio of the sides is kept.
    """
    width, height = (scale, scale) if isinstance(scale, int) else scale
    if not keep_ratio:
        return height, width
    factor = min(max(width, height) / max(size), min(width, height) / min(size))
    return int(size[0] * factor + 0.5), int(size[1] * factor + 0.5)


def _packed(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
