"""Options of a segmentation, and the choice between segmenting an image as a whole and in windows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from rass_mm.errors import ConfigError

MODES = ('auto', 'windows', 'whole')
WHOLE_WINDOWS = 9
"""Largest area, in windows (3 x 3), of an image that 'auto' passes as a whole to a model with test mode 'whole'."""
DEFAULT_WINDOW = 512
Size = tuple[int, int]


@dataclass(frozen=True)
class SegmentOptions:
    """Options of a segmentation.

    Args:
        mode: 'auto' follows the model's config (`test_cfg`), except that an image with more than `WHOLE_WINDOWS` times
            the area of a window is never passed as a whole. 'windows' uses windows for every image that is larger than
            a window. 'whole' passes every image as a whole.
        window: side of a window in pixels, rounded up to a multiple of `size_divisor` in `test_cfg` of the data
            preprocessor. None uses `crop_size` of `test_cfg`, or else the size of the training crops. Setting it
            implies 'windows'.
        overlap: overlap of neighbouring windows in pixels, also rounded up. None uses the overlap of the config, or
            else a third of the window. Setting it implies 'windows'.
        batch_size: number of windows of one image in a batch. None uses `window_batch` of the config.
        confidence: whether to compute the confidence of each pixel.

    Raises:
        ConfigError: a value is out of range, or `window` or `overlap` is set in mode 'whole'.
    """

    mode: str = 'auto'
    window: int | None = None
    overlap: int | None = None
    batch_size: int | None = None
    confidence: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f'mode is {self.mode!r}, but it must be one of {", ".join(MODES)}.')
        if self.mode == 'whole' and (self.window or self.overlap is not None):
            raise ConfigError(
                "mode is 'whole', which does not use windows. Remove window and overlap, or set another mode."
            )
        for name in ('window', 'batch_size'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f'{name} is {value}, but it must be at least 1.')
        if self.overlap is not None and self.overlap < 0:
            raise ConfigError(f'overlap is {self.overlap}, but it must be at least 0.')


class ModeChoice:
    """Chooses the test settings of a segmentor for an image of any size.

    Args:
        segmentor: an mmseg segmentor. The choice depends on its `test_cfg` and its data preprocessor.
        options: see `SegmentOptions`.
        kind: type of the test settings. mmseg's segmentors need mmengine's `ConfigDict`.

    Raises:
        ConfigError: the overlap is not smaller than the window.
    """

    def __init__(self, segmentor: nn.Module, options: SegmentOptions, kind: type[dict] = dict) -> None:
        self.own = kind(getattr(segmentor, 'test_cfg', None) or {})
        self.own_mode = self.own.get('mode', 'whole')
        self.options = options
        preprocessor = segmentor.data_preprocessor
        divisor = _divisor(preprocessor)
        own = self.own.get('crop_size') or getattr(preprocessor, 'size', None) or DEFAULT_WINDOW
        self.window = _pair(_rounded(options.window, divisor) or own)
        self.stride = self._stride(divisor)

    def _stride(self, divisor: int) -> Size:
        if self.options.overlap is not None:
            overlap = _rounded(self.options.overlap, divisor)
            if overlap >= min(self.window):
                raise ConfigError(
                    f'The overlap of {overlap} must be less than the window of {min(self.window)} pixels.'
                )
            return tuple(side - overlap for side in self.window)
        if self.own.get('stride') and self.options.window is None:
            return _pair(self.own['stride'])
        # A multiple of the divisor, so that all windows have the same alignment to the grid of the network.
        return tuple(max(side * 2 // 3 // divisor * divisor, min(divisor, side)) for side in self.window)

    def settings(self, size: Size) -> dict[str, Any]:
        """Returns the `test_cfg` for an image that has this (height, width) after the test pipeline."""
        settings = type(self.own)(self.own)
        if self.options.batch_size is not None:
            settings['window_batch'] = self.options.batch_size
        if self._windows(size):
            settings.update(mode='slide', crop_size=self.window, stride=self.stride)
        elif self.options.mode == 'whole':
            settings['mode'] = 'whole'
        return settings

    def _windows(self, size: Size) -> bool:
        if self.options.mode == 'whole':
            return False
        larger = any(side > own for side, own in zip(size, self.window, strict=True))
        if self.options.mode == 'windows' or self.options.window or self.options.overlap is not None:
            return larger or self.own_mode == 'slide'
        return self.own_mode == 'whole' and self.is_large(size)

    def is_large(self, size: Size) -> bool:
        """Returns whether an image has more than `WHOLE_WINDOWS` times the area of a window."""
        return size[0] * size[1] > WHOLE_WINDOWS * self.window[0] * self.window[1]

    def described(self) -> str:
        """Describes the mode in a few words."""
        height, width = self.window
        windows = f'windows of {width}x{height} at a stride of {self.stride[1]}x{self.stride[0]} pixels'
        if self.options.mode == 'whole':
            return 'each image as a whole'
        if self.options.mode == 'windows' or self.options.window or self.options.overlap is not None:
            return windows
        if self.own_mode == 'slide':
            return f'{windows} (from the config)'
        if self.own_mode != 'whole':
            return f'{self.own_mode!r} (from the config)'
        most = WHOLE_WINDOWS * height * width / 1e6
        return f'images of up to {most:.2f} megapixels as a whole (from the config), larger ones in {windows}'


def _pair(size: Any) -> Size:
    return (size, size) if isinstance(size, int) else tuple(int(side) for side in size)


def _rounded(side: int | None, divisor: int) -> int:
    return -(-(side or 0) // divisor) * divisor


def _divisor(preprocessor: nn.Module) -> int:
    """Returns the divisor of the padded sides of test images, or 1 if test images are not padded.

    mmseg uses `size_divisor` of the data preprocessor in training only.
    """
    test = getattr(preprocessor, 'test_cfg', None)
    return (test.get('size_divisor') if isinstance(test, Mapping) else None) or 1
