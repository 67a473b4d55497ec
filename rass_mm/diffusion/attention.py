"""Explicit cross-attention maps from selected layers of a UNet. All other layers keep PyTorch's fused attention.

The fused kernel does not return the attention probabilities. In the selected layers, a processor computes them
explicitly, stores their mean over the heads and returns the same output as the fused kernel (up to rounding).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from rass_mm.diffusion.prompts import NOBODY
from rass_mm.errors import ConfigError

SECOND_HALF = ('mid_block', 'up_blocks')
"""Default blocks for attention maps: those after the encoder of the UNet."""
ORDER = ('down_blocks', *SECOND_HALF)
"""Order in which a UNet runs its blocks, which differs from the order of registration."""


def cross_attention_layers(unet: UNet2DConditionModel, places: Sequence[str] = SECOND_HALF) -> list[str]:
    """Returns the names of the cross-attention layers (`...attn2`) in some parts of a UNet, in execution order.

    Args:
        unet: the UNet.
        places: names of submodules of the UNet, e.g. 'up_blocks', 'up_blocks.1' or a single layer.

    Raises:
        ConfigError: `places` is empty, or a place has no cross-attention layer. The message lists the blocks that have
            one.
    """
    layers = [name for name, module in unet.named_modules() if isinstance(module, Attention) and name.endswith('attn2')]
    layers.sort(key=lambda name: ORDER.index(name.split('.')[0]))
    for place in places or ('',):
        if not any(_below(name, place) for name in layers):
            blocks = dict.fromkeys('.'.join(name.split('.')[: 1 if name.startswith('mid') else 2]) for name in layers)
            raise ConfigError(
                f'The UNet has no cross-attention at {place!r}. Choose from: {", ".join(blocks)} '
                f'(`mid_block`, `up_blocks` and `down_blocks` select all blocks of a kind).'
            )
    return [name for name in layers if any(_below(name, place) for place in places)]


def _below(name: str, place: str) -> bool:
    return name == place or name.startswith(place + '.')


@contextmanager
def captured_attention(unet: UNet2DConditionModel, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Context manager. Yields a dict to which the attention probabilities of `layers` are written inside the block.

    Each value is (B, N, T): the mean over the heads, with N = h*w positions row by row and T context tokens. Rows sum
    to 1. A second call of the UNet overwrites the maps of the first. After the block exits, all processors are
    restored. With gradient checkpointing, the backward pass runs the layers again. In this case, read the maps before
    the backward pass, and run the backward pass inside the block.
    """
    store: dict[str, Tensor] = {}
    modules = {name: unet.get_submodule(name) for name in layers}
    before = {name: module.processor for name, module in modules.items()}
    try:
        for name, module in modules.items():
            module.processor = _StoringProcessor(store, name)
        yield store
    finally:
        for name, module in modules.items():
            module.processor = before[name]


class _StoringProcessor:
    """Attention processor that computes the probabilities explicitly and stores them."""

    def __init__(self, store: dict[str, Tensor], name: str) -> None:
        self.store, self.name = store, name

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            attn.head_to_batch_dim(part) for part in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        self.store[self.name] = probabilities.unflatten(0, (len(hidden_states), attn.heads)).mean(1)
        output = attn.batch_to_head_dim(torch.bmm(probabilities, value))
        return attn.to_out[1](attn.to_out[0](output)) / attn.rescale_output_factor


def class_maps(attention: Tensor, owners: Tensor, classes: Sequence[int] | Tensor, size: tuple[int, int]) -> Tensor:
    """Computes the attention map of each class as the sum of the attention to the tokens of the class.

    Args:
        attention: (N, T) attention probabilities of one image for N = h*w positions and T tokens.
        owners: (T,) class id of each token, or `NOBODY`.
        classes: the K class ids to return. A tensor (K,) on the device of `owners` is not copied.
        size: height and width (h, w) of the map.

    Returns:
        (K, h, w) in [0, 1]. All values are zero for a class without a token.
    """
    wanted = torch.as_tensor(classes if isinstance(classes, Tensor) else list(classes), device=owners.device).reshape(
        -1, 1
    )
    chosen = (owners.reshape(1, -1) == wanted) & (owners.reshape(1, -1) != NOBODY)
    return (attention @ chosen.to(attention.dtype).T).T.unflatten(1, size)


def map_size(positions: int, image: tuple[int, int]) -> tuple[int, int]:
    """Returns the size (h, w) of the attention map of an image.

    Args:
        positions: number of values of the map, h*w.
        image: height and width of the image in pixels.

    Raises:
        ConfigError: there is no power-of-two stride that divides both sides of the image and results in `positions`
            values.
    """
    stride = 1
    while (image[0] // stride) * (image[1] // stride) > positions:
        stride *= 2
    if (image[0] // stride) * (image[1] // stride) != positions or image[0] % stride or image[1] % stride:
        raise ConfigError(
            f'{positions} attention positions do not tile an image of {image[0]}x{image[1]} pixels at any power-of-two '
            f'stride. Pass the size of the image that the UNet processed.'
        )
    return image[0] // stride, image[1] // stride
