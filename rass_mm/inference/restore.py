"""Restoration of one image: enlarged, window by window, with the colours of its source if asked."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rass_mm.diffusion.color import COLOR_FIXES, fix_colors
from rass_mm.diffusion.latent_tiles import SCHEMES
from rass_mm.diffusion.tiling import blended
from rass_mm.errors import AdapterError, ConfigError
from rass_mm.files.resizing import OSEDIFF_MULTIPLE, enlarged, osediff_sized

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
        scheme: 'windows', blended windows of the image, or 'osediff', OSEDiff's own: sizes of `osediff_sized`, the
            autoencoder on the whole image, the UNet in latent tiles. Its memory grows with the image; it needs a
            restorer with `latent_tiles=True`, and `window`, `overlap` and `batch` have no effect.

    Raises:
        ConfigError: a value is out of range, or the overlap is not less than the window.
    """

    upscale: float = 1.0
    window: int = 512
    overlap: int = 64
    batch: int = 1
    color_fix: str = 'none'
    scheme: str = 'windows'

    def __post_init__(self) -> None:
        if not (math.isfinite(self.upscale) and self.upscale >= 1):
            raise ConfigError(f'The enlargement is {self.upscale}, but it must be 1 or more.')
        if min(self.window, self.batch) < 1 or self.overlap < 0:
            raise ConfigError(
                f'Window {self.window} and batch {self.batch} must be 1 or more, overlap {self.overlap} 0 or more.'
            )
        self.tiling(1)
        if self.scheme not in SCHEMES:
            raise ConfigError(f'There is no scheme {self.scheme!r}; choose one of {", ".join(SCHEMES)}.')
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


def restore_image(
    image: np.ndarray, apply: Apply, options: RestoreOptions, multiple: int = 64, depth: str = 'float32'
) -> np.ndarray:
    """Restores one image.

    Args:
        image: (H, W, 3) float32 RGB in [0, 1], of any size.
        apply: the network; it gets windows on the CPU and moves them to its device.
        options: see `RestoreOptions`.
        multiple: what the sides of the network's input are multiples of (64 for Stable Diffusion).
        depth: pixel type of the file that the image comes from (`Picture.depth`). 'uint8' is enlarged in 8 bits, as
            the published restorers do it; any other in full precision.

    Returns:
        (round(H x upscale), round(W x upscale), 3) float32 RGB in [0, 1], another array than `image`. The scheme
        'osediff' gives the sides of `osediff_sized`.

    Raises:
        AdapterError: the network gives NaN or infinity.
        ConfigError: the options do not fit the network, it changes the shape, or its device has too little memory for
            a batch.
    """
    source = _source(image, options, depth)
    window, overlap = options.tiling(multiple) if options.scheme == 'windows' else _whole(source, multiple)
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


def _source(image: np.ndarray, options: RestoreOptions, depth: str) -> np.ndarray:
    """The enlarged image, float32 in [0, 1]; the image itself where its size stays."""
    image = np.ascontiguousarray(image, np.float32)
    if options.scheme == 'windows' and options.upscale == 1:
        return image
    resize = enlarged if options.scheme == 'windows' else osediff_sized
    exact = np.rint(image * 255).astype(np.uint8) if depth == 'uint8' else image
    larger = resize(exact, options.upscale)
    if larger is exact:
        return image
    return np.divide(larger, np.float32(255)) if depth == 'uint8' else larger


def _whole(source: np.ndarray, multiple: int) -> tuple[int, int]:
    """Window and overlap of one pass over the whole image."""
    if OSEDIFF_MULTIPLE % multiple:
        raise ConfigError(
            f"The scheme 'osediff' gives images whose sides are multiples of {OSEDIFF_MULTIPLE}, but this restorer "
            f'needs multiples of {multiple}. Load it with latent_tiles=True.'
        )
    return max(source.shape[:2]), 0


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
