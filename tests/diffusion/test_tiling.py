"""Windows, compared with mmseg's sliding inference."""

import numpy as np
import pytest

from rass_mm.diffusion.tiling import batched, windows
from rass_mm.errors import ConfigError


def mmseg_windows(size, crop, stride):
    """Computes the windows with the loop of `EncoderDecoder.slide_inference` in mmseg 1.2.2."""
    (h_img, w_img), (h_crop, w_crop), (h_stride, w_stride) = size, crop, stride
    boxes = []
    for h_idx in range(max(h_img - h_crop + h_stride - 1, 0) // h_stride + 1):
        for w_idx in range(max(w_img - w_crop + w_stride - 1, 0) // w_stride + 1):
            y2, x2 = min(h_idx * h_stride + h_crop, h_img), min(w_idx * w_stride + w_crop, w_img)
            y1, x1 = max(y2 - h_crop, 0), max(x2 - w_crop, 0)
            boxes.append((y1, y2, x1, x2))
    return boxes


def random_cases(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        size, window = rng.integers(1, 200, 2), rng.integers(1, 120, 2)
        stride = [int(rng.integers(1, side + 1)) for side in window]
        yield tuple(size.tolist()), tuple(window.tolist()), tuple(stride)


def test_the_grid_equals_that_of_mmseg():
    for case in random_cases(400):
        assert windows(*case) == mmseg_windows(*case), case


def test_every_pixel_is_covered_by_windows_inside_the_image():
    for size, window, stride in random_cases(200):
        covered = np.zeros(size, int)
        for top, bottom, left, right in windows(size, window, stride):
            assert 0 <= top < bottom <= size[0] and 0 <= left < right <= size[1]
            assert (bottom - top, right - left) == (min(window[0], size[0]), min(window[1], size[1]))
            covered[top:bottom, left:right] += 1
        assert covered.min() >= 1, (size, window, stride)


def test_no_window_is_repeated():
    for case in random_cases(200):
        assert len(set(windows(*case))) == len(windows(*case)), case


@pytest.mark.parametrize(
    ('size', 'expected'),
    [
        ((64, 64), [(0, 64, 0, 64)]),
        ((40, 64), [(0, 40, 0, 64)]),
        ((64, 65), [(0, 64, 0, 64), (0, 64, 1, 65)]),
        ((112, 64), [(0, 64, 0, 64), (48, 112, 0, 64)]),
    ],
)
def test_known_grids(size, expected):
    assert windows(size, (64, 64), (48, 48)) == expected


@pytest.mark.parametrize('size', [1, 3, 7, 100])
def test_batches_keep_the_order_and_the_bound(size):
    items = windows((200, 150), (64, 64), (40, 40))
    chunks = list(batched(items, size))
    assert [item for chunk in chunks for item in chunk] == items
    assert all(len(chunk) == size for chunk in chunks[:-1]) and 1 <= len(chunks[-1]) <= size


@pytest.mark.parametrize('stride', [(20, 10), (10, 20), (0, 10), (10, -1)])
def test_strides_that_leave_pixels_out_are_refused(stride):
    with pytest.raises(ConfigError, match='stride'):
        windows((100, 100), (10, 10), stride)


def test_batches_of_size_zero_are_refused():
    with pytest.raises(ConfigError):
        list(batched([(0, 1, 0, 1)], 0))


def test_no_items_yield_no_batches():
    assert list(batched([], 4)) == []
