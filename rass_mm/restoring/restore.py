"""Restores one image: enlarged, window by window, with the colours of its source if asked."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from rass_mm.diffusion.tiling import blended
from rass_mm.errors import AdapterError, ConfigError
from rass_mm.restoring.color import COLOR_FIXES, fix_colors

Apply = Callable[[Tensor], Tensor]
"""A restoring network: (B, 3, h, w) RGB in [-1, 1] to the same shape."""


@dataclass(frozen=True)
class RestoreOptions:
    """How images are restored.

    Args:
        upscale: factor of enlargement, bicubic, before the network sees the image; 1 or more.
        window: side of a window in pixels, rounded up to the network's multiple.
        overlap: pixels that neighbouring windows share, rounded up to the network's multiple. Wider hides more.
        batch: windows at a time.
        color_fix: 'none', 'adain' or 'wavelet', see `fix_colors`. Both fixes bring back colour casts of the source too.

    Raises:
        ConfigError: a value is out of range, or the overlap is not less than the window.
    """

    upscale: float = 1.0
    window: int = 512
    overlap: int = 64
    batch: int = 1
    color_fix: str = 'none'

    def __post_init__(self) -> None:
        if not (math.isfinite(self.upscale) and self.upscale >= 1):
            raise ConfigError(f'The enlargement is {self.upscale}, but it must be 1 or more.')
        if min(self.window, self.batch) < 1 or self.overlap < 0:
            raise ConfigError(
                f'Window {self.window} and batch {self.batch} must be 1 or more, overlap {self.overlap} 0 or more.'
            )
        self.tiling(1)
        if self.color_fix not in COLOR_FIXES:
            raise ConfigError(f'There is no colour fix {self.color_fix!r}; choose one of {", ".join(COLOR_FIXES)}.')

    def tiling(self, multiple: int) -> tuple[int, int]:
        """Window and overlap in pixels, as a network gets them whose input has sides of multiples of `multiple`.

        Raises:
            ConfigError: the overlap is not less than the window.
        """
        window, overlap = (-(-side // multiple) * multiple for side in (self.window, self.overlap))
        if overlap < window:
            return window, overlap
        rounded = f' In multiples of {multiple}, which this network needs, they are {overlap} and {window}.'
        raise ConfigError(
            f'The overlap of {self.overlap} must be less than the window of {self.window} pixels.'
            f'{rounded if multiple > 1 else ""} Give a larger window.'
        )


def restore_image(image: np.ndarray, apply: Apply, options: RestoreOptions, multiple: int = 64) -> np.ndarray:
    """Restores one image.

    Args:
        image: (H, W, 3) float32 RGB in [0, 1], of any size.
        apply: the network; it gets windows on the CPU and moves them where it wants.
        options: see `RestoreOptions`.
        multiple: what the sides of the network's input are multiples of (64 for Stable Diffusion).

    Returns:
        (round(H x upscale), round(W x upscale), 3) float32 RGB in [0, 1], another array than `image`.

    Raises:
        AdapterError: the network gives NaN or infinity.
        ConfigError: the options do not fit the network, it changes the shape, or its device has too little memory for
            a batch.
    """
    source = enlarged(image, options.upscale)
    window, overlap = options.tiling(multiple)
    try:
        with torch.inference_mode():
            planes = torch.from_numpy(source).permute(2, 0, 1)
            result = blended(planes, _in_unit_range(apply), window, overlap, options.batch, multiple)
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f'Too little memory for {options.batch} windows of {window} pixels. Give a smaller batch or window, or '
            'bfloat16.'
        ) from error
    restored = np.ascontiguousarray(result.permute(1, 2, 0).numpy())  # the layout of `source`: no copy
    fix_colors(restored, source, options.color_fix)
    return np.clip(restored, 0, 1, out=restored)


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """A bicubic enlargement of (H, W) or (H, W, C) float32 in [0, 1], kept in that range; itself for factor 1."""
    height, width = (round(side * factor) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return np.ascontiguousarray(image, np.float32)
    larger = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(larger, 0, 1, out=larger)


def _in_unit_range(apply: Apply) -> Apply:
    """The network for windows in [0, 1]: the whole image need not be copied into [-1, 1]."""

    def checked(images: Tensor) -> Tensor:
        outputs = apply(images.mul(2).sub_(1)).float()
        if not torch.isfinite(outputs).all():
            raise AdapterError(
                'The restorer gave NaN or infinity. Either its weights are damaged, or float16 is too narrow for them: '
                'use float32 or bfloat16.'
            )
        return outputs.add(1).div_(2)

    return checked
