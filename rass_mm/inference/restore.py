"""Restoration of one image in windows, with optional enlargement and colour correction."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rass_mm.devices import check_memory
from rass_mm.diffusion.color import COLOR_FIXES, fix_colors
from rass_mm.diffusion.latent_tiles import SCHEMES
from rass_mm.diffusion.tiling import blended, windows
from rass_mm.errors import AdapterError, ConfigError
from rass_mm.files.resizing import OSEDIFF_MULTIPLE, enlarged, osediff_sized

ENLARGED_BYTES = 32
"""Memory per pixel of an enlarged image in bytes."""
Apply = Callable[[Tensor], Tensor]
"""Restoration network that maps (B, 3, h, w) RGB in [-1, 1] to the same shape and range."""


@dataclass(frozen=True)
class RestoreOptions:
    """Options of a restoration.

    Args:
        upscale: factor of the bicubic enlargement before the network; at least 1.
        window: side of a window in pixels, rounded up to a multiple of the network's `size_multiple`.
        overlap: overlap of neighbouring windows in pixels, also rounded up. A larger overlap hides seams better.
        batch: number of windows per batch.
        color_fix: 'none', 'adain' or 'wavelet', see `fix_colors`. Both fixes also transfer colour casts of the source.
        scheme: 'windows' blends windows of the image. 'osediff' is OSEDiff's scheme: the image is resized with
            `osediff_sized`, the autoencoder processes it as a whole, and the UNet processes latent tiles. The memory
            use of this scheme grows with the image. It requires a restorer with `latent_tiles=True` and ignores
            `window`, `overlap` and `batch`.

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
            raise ConfigError(f'The upscale factor is {self.upscale}, but it must be 1 or more.')
        if min(self.window, self.batch) < 1 or self.overlap < 0:
            raise ConfigError(
                f'window is {self.window}, batch is {self.batch} and overlap is {self.overlap}, but window and batch '
                'must be at least 1, and overlap must be at least 0.'
            )
        self.tiling(1)
        if self.scheme not in SCHEMES:
            raise ConfigError(f'Unknown scheme {self.scheme!r}. Choose one of {", ".join(SCHEMES)}.')
        if self.color_fix not in COLOR_FIXES:
            raise ConfigError(f'Unknown colour fix {self.color_fix!r}. Choose one of {", ".join(COLOR_FIXES)}.')

    def tiling(self, multiple: int) -> tuple[int, int]:
        """Returns the window and the overlap in pixels, rounded up to multiples of `multiple`.

        Raises:
            ConfigError: the overlap is not less than the window.
        """
        window, overlap = (-(-side // multiple) * multiple for side in (self.window, self.overlap))
        if overlap < window:
            return window, overlap
        rounded = f' Rounded up to multiples of {multiple} for this network, they are {overlap} and {window}.'
        raise ConfigError(
            f'The overlap of {self.overlap} must be less than the window of {self.window} pixels.'
            f'{rounded if multiple > 1 else ""} Set a larger window.'
        )


def restore_image(
    image: np.ndarray,
    apply: Apply,
    options: RestoreOptions | None = None,
    multiple: int | None = None,
    depth: str = 'float32',
) -> np.ndarray:
    """Restores one image.

    Args:
        image: (H, W, 3) float32 RGB in [0, 1], of any size.
        apply: the network, e.g. a `Restorer`. The image is moved to its `device` once, because a copy per window would
            make an accelerator wait. If the network has no such attribute, it receives windows on the CPU.
        options: see `RestoreOptions`; None uses its defaults.
        multiple: required divisor of the sides of the network's input. None uses `apply.size_multiple`, or 64 (as
            for Stable Diffusion) if the network has no such attribute.
        depth: pixel type of the image file (`Picture.depth`). 'uint8' is enlarged in 8 bits, as in the published
            restorers; other types are enlarged in full precision.

    Returns:
        (round(H x upscale), round(W x upscale), 3) float32 RGB in [0, 1], always a new array. With the scheme
        'osediff' the sides are those of `osediff_sized`.

    Raises:
        AdapterError: the network returns NaN or infinity.
        ConfigError: the options do not suit the network, the network changes the shape, or its device has too little
            memory for a batch.
    """
    options = options or RestoreOptions()
    multiple = multiple or getattr(apply, 'size_multiple', 64)
    source = _source(image, options, depth)
    window, overlap = options.tiling(multiple) if options.scheme == 'windows' else _whole(source, multiple)
    network = _Checked(apply)
    try:
        with torch.inference_mode():
            planes = torch.from_numpy(source).permute(2, 0, 1).to(getattr(apply, 'device', 'cpu'))
            result = blended(planes, network, window, overlap, options.batch, multiple)
            network.check()
            result = result.cpu()
    except torch.cuda.OutOfMemoryError as error:
        raise ConfigError(
            f'Too little memory for {options.batch} windows of {window} pixels. Use a smaller batch or window, or '
            'bfloat16.'
        ) from error
    restored = np.ascontiguousarray(result.permute(1, 2, 0).numpy())  # no copy: the layout is that of `source`
    fix_colors(restored, source, options.color_fix)
    return np.clip(restored, 0, 1, out=restored)


def window_count(size: tuple[int, int], options: RestoreOptions, multiple: int) -> int:
    """Returns how many windows `restore_image` passes to the network for an image of this (height, width)."""
    if options.scheme != 'windows':
        return 1
    window, overlap = options.tiling(multiple)
    padded = tuple(-(-round(side * options.upscale) // multiple) * multiple for side in size)
    return len(windows(padded, (window, window), (window - overlap, window - overlap)))


def _source(image: np.ndarray, options: RestoreOptions, depth: str) -> np.ndarray:
    """Returns the enlarged image as float32 in [0, 1], or the image itself if its size does not change."""
    image = np.ascontiguousarray(image, np.float32)
    if options.scheme == 'windows' and options.upscale == 1:
        return image
    height, width = (side * options.upscale for side in image.shape[:2])
    check_memory(
        height * width * ENLARGED_BYTES,
        f'--upscale {options.upscale:g} of an image of {image.shape[1]}x{image.shape[0]} pixels',
        'Choose a smaller upscale factor (--upscale).',
    )
    resize = enlarged if options.scheme == 'windows' else osediff_sized
    exact = np.rint(image * 255).astype(np.uint8) if depth == 'uint8' else image
    larger = resize(exact, options.upscale)
    if larger is exact:
        return image
    return np.divide(larger, np.float32(255)) if depth == 'uint8' else larger


def _whole(source: np.ndarray, multiple: int) -> tuple[int, int]:
    """Returns the window and the overlap for a single pass over the whole image."""
    if OSEDIFF_MULTIPLE % multiple:
        raise ConfigError(
            f"The scheme 'osediff' produces images with sides that are multiples of {OSEDIFF_MULTIPLE}, but this "
            f'restorer requires multiples of {multiple}. Load it with latent_tiles=True.'
        )
    return max(source.shape[:2]), 0


class _Checked:
    """Wraps the network to map windows in [0, 1], so that the whole image need not be converted to [-1, 1].

    On a CPU, the outputs are checked window by window. On other devices, reading the outcome of a check waits for the
    device, so it is read once, in `check`.

    Args:
        apply: the network.
    """

    def __init__(self, apply: Apply) -> None:
        self.apply = apply
        self.finite: Tensor | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Applies the network to (B, 3, h, w) RGB in [0, 1], and returns the same shape and range."""
        outputs = self.apply(images.mul(2).sub_(1)).float()
        finite = torch.isfinite(outputs).all()
        self.finite = finite if self.finite is None else self.finite & finite
        if outputs.device.type == 'cpu':
            self.check()
        return outputs.add(1).div_(2)

    def check(self) -> None:
        """Raises an `AdapterError` if the network has returned NaN or infinity."""
        if self.finite is not None and not self.finite:
            raise AdapterError(
                'The restorer returned NaN or infinity. Its weights are damaged, or the range of float16 is too small '
                'for them. Use float32 or bfloat16.'
            )
