"""Measured limits of the device: rates of a large matrix product and of typical UNet convolutions."""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rass_mm.devices import synchronise
from rass_mm.errors import ConfigError

CONVOLUTIONS = ((320, 64), (1280, 16))
"""(channels, feature map side) of 3x3 convolutions at two levels of Stable Diffusion's UNet at 512x512 pixels."""
SIDES = {'cpu': 1024, 'cuda': 8192}
BATCHES = {'cpu': 1, 'cuda': 16}
SECONDS, REPEATS = 0.3, 100
TERA = 1e12


@torch.no_grad()
def measured_ceiling(device: torch.device, dtype: str) -> dict[str, Any]:
    """Measures the rates of a matrix product and of convolutions in TFLOP/s. A multiply-add counts as 2 FLOP.

    Returns:
        A dict with the keys `matmul`, `convolution` (the highest rate over the shapes of `CONVOLUTIONS` and both memory
        layouts) and `shapes`, a dict from each measured shape to its rate.

    Raises:
        ConfigError: the device does not support this dtype.
    """
    side = SIDES.get(device.type, SIDES['cpu'])
    options = {'device': device, 'dtype': getattr(torch, dtype)}
    try:
        left, right = torch.randn(2, side, side, **options)
        matmul = rate(lambda: left @ right, 2 * side**3, device)
        shapes = {f'matmul {side}x{side}x{side}': matmul}
        for channels, map_side in CONVOLUTIONS:
            name, value = convolution_rate(channels, map_side, device, options)
            shapes[name] = value
    except RuntimeError as error:
        reason = str(error).partition('\n')[0]
        raise ConfigError(f'{device} cannot compute in {dtype} ({reason}). Choose another --dtype.') from error
    convolution = max(value for name, value in shapes.items() if name.startswith('conv'))
    return {'matmul': matmul, 'convolution': convolution, 'shapes': shapes}


def convolution_rate(channels: int, side: int, device: torch.device, options: dict[str, Any]) -> tuple[str, float]:
    """Returns the name of a 3x3 convolution with equal input and output channels, and its rate in TFLOP/s.

    Both memory layouts are measured, and the higher rate is returned.
    """
    batch = BATCHES.get(device.type, BATCHES['cpu'])
    images = torch.randn(batch, channels, side, side, **options)
    weights = torch.randn(channels, channels, 3, 3, **options)
    operations = 2 * 9 * channels**2 * side**2 * batch
    rates = []
    for layout in (torch.contiguous_format, torch.channels_last):
        rates.append(rate(_convolution(images, weights, layout), operations, device))
    return f'conv 3x3 {channels}->{channels} at {batch}x{side}x{side}', max(rates)


def _convolution(images: Tensor, weights: Tensor, layout: torch.memory_format) -> Callable[[], Tensor]:
    images, weights = (x.contiguous(memory_format=layout) for x in (images, weights))
    return lambda: F.conv2d(images, weights, padding=1)


def rate(run: Callable[[], Any], operations: float, device: torch.device) -> float:
    """Runs a function once to warm up and then for about `SECONDS`. Returns the rate of the fastest run in TFLOP/s.

    Args:
        run: the function, whose computations may be asynchronous.
        operations: number of floating-point operations per run.
        device: device on which the function computes.
    """
    run()
    synchronise(device)
    best, spent = float('inf'), 0.0
    for _ in range(REPEATS):
        started = time.perf_counter()
        run()
        synchronise(device)
        seconds = time.perf_counter() - started
        best, spent = min(best, seconds), spent + seconds
        if spent > SECONDS:
            break
    return operations / best / TERA
