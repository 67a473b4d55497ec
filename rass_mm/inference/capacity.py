"""Estimate of the largest image that fits into memory."""

import torch

from rass_mm.devices import available_memory

SEGMENT_BYTES, RESTORE_BYTES = 48, 32
"""Peak memory per pixel of an image in bytes, without the memory of the network."""


def fitting(bytes_per_pixel: float, max_pixels: int, device: torch.device | None = None) -> str:
    """Describes the size of the largest image that can be processed, for a log message.

    This is the smaller of `max_pixels` and the size that fits into the free memory.

    Args:
        bytes_per_pixel: peak memory per pixel in bytes.
        max_pixels: largest number of pixels that is allowed.
        device: the device that holds whole images; None if images stay in main memory.
    """
    free = available_memory()
    if device is not None and device.type == 'cuda' and free is not None:
        free = min(free, torch.cuda.mem_get_info(device)[0])
    if free is None or free / bytes_per_pixel >= max_pixels:
        return f'images of up to {pixel_count(max_pixels)} (--max-pixels)'
    most = pixel_count(free / bytes_per_pixel)
    return f'images of about {most} fit into memory (limit: {pixel_count(max_pixels)})'


def pixel_count(pixels: float) -> str:
    """Describes a number of pixels, e.g. '89.5 megapixels' or '6,144 pixels'."""
    return f'{pixels / 1e6:.1f} megapixels' if pixels >= 1e6 else f'{pixels:,.0f} pixels'
