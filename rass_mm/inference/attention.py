"""Computes maps of the attention of a restorer's UNet to each class name, and draws pages that show them."""

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rass_mm.diffusion.adapter_files import AdapterSource, as_adapter
from rass_mm.diffusion.attention import SECOND_HALF, class_maps, cross_attention_layers, map_size
from rass_mm.diffusion.prompts import NOBODY
from rass_mm.errors import AdapterError, ConfigError
from rass_mm.visualization import captioned, grid, heat_colors

if TYPE_CHECKING:
    from rass_mm.diffusion.restorer import Restorer

COUNT = 12
WIDEST, NARROWEST = 512, 224
COLUMNS = 4
HEAT = 0.65
"""Weight of the heat map's colour over the image."""


def adapter_classes(adapter: AdapterSource) -> list[str]:
    """Returns the class names that a restorer's adapter was trained with.

    Raises:
        AdapterError: the file is unusable or is not the adapter of a restorer.
    """
    found = as_adapter(adapter)
    if 'recipe' not in found.header:
        raise AdapterError(
            f'{found.path} is not a restorer, because its header has no recipe (prompt, classes). Pass an adapter '
            'written by the training of a restorer.'
        )
    return found.header['recipe']['classes']


def class_attention(
    restorer: 'Restorer', image: np.ndarray, classes: Sequence[str], layers: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Computes where the UNet attends to each class name while it restores an image.

    Args:
        restorer: a restorer from `load_restorer`.
        image: (H, W, 3) float RGB in [0, 1], of any size.
        classes: the class names that the restorer was trained with, see `adapter_classes`.
        layers: blocks from which to take cross-attention, e.g. `['mid_block', 'up_blocks.1']`; None takes the second
            half of the UNet.

    Returns:
        Class name -> (H, W) float32 in [0, 1]: the attention to the tokens of the name, averaged over heads and layers
        after each layer's map is resized bilinearly to the size of the image. The sum over all tokens, including those
        of no class, is 1 at each pixel.

    Raises:
        ConfigError: the layers do not exist, or the restorer's prompt names no classes.
    """
    return dict(iterate_attention(restorer, image, classes, layers))


def iterate_attention(
    restorer: 'Restorer', image: np.ndarray, classes: Sequence[str], layers: Sequence[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the items of `class_attention` one by one, because all maps of a large image can take gigabytes."""
    height, width = image.shape[:2]
    multiple = restorer.size_multiple
    padding = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    padded = np.pad(np.asarray(image, np.float32), padding, mode='reflect')
    size = padded.shape[:2]
    coarse = _layer_maps(restorer, padded, len(classes), layers)
    for index, name in enumerate(classes):
        # Resized separately, because the maps of the layers differ in size.
        enlarged = [F.interpolate(maps[None, [index]], size, mode='bilinear') for maps in coarse]
        yield name, torch.stack(enlarged).mean(0)[0, 0, :height, :width].numpy()


def _layer_maps(restorer: 'Restorer', image: np.ndarray, count: int, layers: Sequence[str] | None) -> list[Tensor]:
    """Returns the (K, h, w) float32 CPU maps of each layer; image sides must be multiples of `size_multiple`."""
    model = restorer.model
    inputs = torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1
    before = model.attention_layers
    model.attention_layers = cross_attention_layers(model.unet, layers or SECOND_HALF)
    try:
        maps, prompt = restorer.attention(inputs)
    finally:
        model.attention_layers = before
    owners = prompt.owners[0].cpu()
    if (owners == NOBODY).all():
        raise ConfigError(
            f'The adapter was trained with {type(restorer.prompt).__name__}, which names no classes, so there is no '
            'attention to a class. Train it with ClassTokens.'
        )
    tables = [table[0].float().cpu() for table in maps.values()]
    return [class_maps(table, owners, range(count), map_size(len(table), image.shape[:2])) for table in tables]


def peak_to_mean(values: np.ndarray) -> float:
    """Computes the ratio of a map's maximum to its mean. Returns 0 for a map of zeros."""
    mean = float(values.mean())
    return float(values.max()) / mean if mean > 0 else 0.0


def strongest(maps: Iterable[tuple[str, np.ndarray]], count: int = COUNT) -> list[tuple[str, np.ndarray]]:
    """Returns the `count` named maps with the largest peak-to-mean ratio, largest first. Other maps are discarded."""
    return heapq.nlargest(count, maps, key=lambda item: peak_to_mean(item[1]))


def attention_page(image: np.ndarray, maps: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draws a page with the image and with each map as a heat map over it, captioned with its name and maximum.

    Args:
        image: (H, W, 3) float RGB in [0, 1].
        maps: name -> (H, W) float, non-negative; each is shown relative to its own maximum.

    Returns:
        (h, w, 3) uint8 RGB. Cells are at most 512 pixels wide; small images are enlarged so that the text fits.
    """
    small = _fitted(image)
    size = f'{image.shape[1]}x{image.shape[0]}; heat: map / its own maximum'
    cells = [captioned(_eight_bits(small), 'input', size)]
    for name, values in maps.items():
        peak = float(values.max())
        note = f'maximum {peak:.3g}, {peak_to_mean(values):.2f} x mean'
        cells.append(captioned(_eight_bits(_heated(small, _fitted(values) / (peak or 1))), name, note))
    return grid(cells, COLUMNS)


def _fitted(values: np.ndarray) -> np.ndarray:
    """Resizes an image or a map to the width of a cell."""
    height, width = values.shape[:2]
    enlarged = min(-(-NARROWEST // width), WIDEST // height)  # tall, narrow images are not enlarged
    factor = min(WIDEST / width, max(1, enlarged))
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    return cv2.resize(np.ascontiguousarray(values, np.float32), size, interpolation=method)


def _heated(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Converts an RGB image to grey and overlays a heat map in [0, 1], dark at 0 and yellow at 1."""
    colors = heat_colors(heat)[..., ::-1].astype(np.float32) / 255
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] * (1 - HEAT) + colors * HEAT


def _eight_bits(image: np.ndarray) -> np.ndarray:
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)
