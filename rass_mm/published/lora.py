"""Collection and checks of the LoRA tensors in published files."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from rass_mm.errors import CheckpointError

PATTERN = re.compile(r'(?P<layer>.+)\.lora_(?P<side>[AB])\.(?P<adapter>[^.]+)\.weight')
ALPHA = 8.0
"""Default alpha of peft. The published code uses it, and no file contains it. An update is scaled by 8 / rank."""


@dataclass
class LoraPart:
    """LoRA of one network, combined from several published adapters.

    Args:
        rank: rank of all layers, or 0 if there are no layers.
        tensors: the tensors `<layer>.lora_A.weight` and `<layer>.lora_B.weight`.
        sources: name in `tensors` -> published name.
    """

    rank: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        """Names of the adapted layers, sorted."""
        return sorted({name.rpartition('.lora_')[0] for name in self.tensors})


def collect_lora(tensors: Mapping[str, Tensor], model: nn.Module, what: str) -> LoraPart:
    """Combines all LoRA tensors of a network into one adapter, regardless of adapter names.

    Args:
        tensors: published name -> tensor. Names without `.lora_` are ignored.
        model: the network without adapters, on any device, whose layers the LoRA must match in name and shape.
        what: name of the network in error messages, e.g. 'UNet'.

    Raises:
        CheckpointError: the LoRA of a layer is incomplete or has the wrong shape, a layer is unknown or has two
            adapters, or the ranks of the layers differ.
    """
    part = LoraPart()
    for key, value in tensors.items():
        if '.lora_' not in key:
            continue
        match = PATTERN.fullmatch(key)
        if match is None:
            raise CheckpointError(
                f'{what}: {key} does not have the name of a LoRA tensor, <layer>.lora_A.<adapter>.weight. Use the file '
                f'as published by its authors.'
            )
        name = f'{match["layer"]}.lora_{match["side"]}.weight'
        if name in part.tensors:
            raise CheckpointError(
                f'{what}: {part.sources[name]} and {key} adapt the same layer, which is not supported.'
            )
        part.tensors[name], part.sources[name] = value, key
    part.rank = _common_rank(part, what)
    for layer in part.layers:
        _check_layer(part, layer, model, what)
    return part


def _common_rank(part: LoraPart, what: str) -> int:
    ranks: dict[int, str] = {}
    for name, value in part.tensors.items():
        ranks.setdefault(value.shape[0 if '.lora_A.' in name else 1], part.sources[name])
    if len(ranks) > 1:
        listed = ', '.join(f'{rank} ({key})' for rank, key in sorted(ranks.items()))
        raise CheckpointError(f'{what}: the LoRA tensors have different ranks: {listed}. All must have the same rank.')
    return next(iter(ranks), 0)


def _check_layer(part: LoraPart, layer: str, model: nn.Module, what: str) -> None:
    sides = [part.tensors.get(f'{layer}.lora_{side}.weight') for side in 'AB']
    if any(side is None for side in sides):
        missing = 'A' if sides[0] is None else 'B'
        raise CheckpointError(
            f'{what}: layer {layer} has no lora_{missing} tensor. The file is incomplete. Download it again.'
        )
    try:
        weight = model.get_submodule(layer).weight
    except AttributeError:
        raise CheckpointError(
            f'{what}: {layer} is adapted in the file, but the base has no such layer. Set --base to the Stable '
            f'Diffusion folder that the file was made for.'
        ) from None
    needed = [(part.rank, *weight.shape[1:]), (weight.shape[0], part.rank, *(1 for _ in weight.shape[2:]))]
    for side, tensor, shape in zip('AB', sides, needed, strict=True):
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f'{what}: {layer}.lora_{side} has shape {tuple(tensor.shape)}, but this base needs {shape}. The file '
                f'was made for a base of another width. Set --base to the Stable Diffusion folder that the file was '
                f'made for (2.1-base for the published files).'
            )


def check_declared(part: LoraPart, listed: Iterable[str], declared: int | None, what: str) -> set[str]:
    """Compares a LoRA with the rank and the layers that its file declares.

    Args:
        part: the LoRA.
        listed: names of the layers that the file lists as adapted.
        declared: rank that the file declares. None skips the check of the rank.
        what: name of the network in error messages.

    Returns:
        The adapted layers that the file does not list.

    Raises:
        CheckpointError: the rank differs from the declared one, or a listed layer has no tensors.
    """
    if declared is not None and declared != part.rank:
        raise CheckpointError(
            f'{what}: the file declares rank {declared}, but its LoRA tensors have rank {part.rank} '
            f'({next(iter(part.sources.values()), "there are none")}). The file is damaged or was combined from two '
            f'files. Use the file as published by its authors.'
        )
    listed = set(listed)
    absent = sorted(listed - set(part.layers))
    if absent:
        raise CheckpointError(
            f'{what}: the file lists {len(absent)} adapted layers without tensors; the first is {absent[0]}. The file '
            f'is incomplete. Download it again.'
        )
    return set(part.layers) - listed
