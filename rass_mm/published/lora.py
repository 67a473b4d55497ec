"""Collects and checks the LoRA tensors of published files."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from rass_mm.errors import CheckpointError

PATTERN = re.compile(r'(?P<layer>.+)\.lora_(?P<side>[AB])\.(?P<adapter>[^.]+)\.weight')
ALPHA = 8.0
"""Default alpha of peft, which the published code uses and no file stores. The scale of an update is 8 / rank."""


@dataclass
class LoraPart:
    """LoRA of one network, combined from several published adapters.

    Args:
        rank: rank of all layers; 0 without layers.
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
        tensors: published names and values; names without `.lora_` are ignored.
        model: the network without adapters, on any device; defines the names and shapes of the layers.
        what: name of the network in error messages, e.g. 'UNet'.

    Raises:
        CheckpointError: a layer is unknown, adapted twice or incomplete, or has another width, or the ranks differ.
    """
    part = LoraPart()
    for key, value in tensors.items():
        if '.lora_' not in key:
            continue
        match = PATTERN.fullmatch(key)
        if match is None:
            raise CheckpointError(f'{what}: {key} is not named like a LoRA tensor (<layer>.lora_A.<adapter>.weight).')
        name = f'{match["layer"]}.lora_{match["side"]}.weight'
        if name in part.tensors:
            raise CheckpointError(f'{what}: two adapters for one layer, {part.sources[name]} and {key}.')
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
        raise CheckpointError(f'{what}: layer {layer} has no lora_{missing} tensor; the file is incomplete.')
    try:
        weight = model.get_submodule(layer).weight
    except AttributeError:
        raise CheckpointError(
            f'{what}: {layer} is adapted in the file, but the base has no such layer. Pass the base it was made for.'
        ) from None
    needed = [(part.rank, *weight.shape[1:]), (weight.shape[0], part.rank, *(1 for _ in weight.shape[2:]))]
    for side, tensor, shape in zip('AB', sides, needed, strict=True):
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f'{what}: {layer}.lora_{side} has shape {tuple(tensor.shape)}, but this base needs {shape}: the file '
                f'was made for a base with another width. Set --base to the Stable Diffusion folder it was made for '
                f'(2.1-base for the published files).'
            )


def check_declared(part: LoraPart, listed: Iterable[str], declared: int | None, what: str) -> set[str]:
    """Compares the adapter with the rank and layers declared in the file; returns layers that are not listed.

    Raises:
        CheckpointError: the rank differs from the declared one, or a listed layer has no tensors.
    """
    if declared is not None and declared != part.rank:
        raise CheckpointError(
            f'{what}: the file declares rank {declared}, but its LoRA tensors have rank {part.rank} '
            f'({next(iter(part.sources.values()), "there are none")}). It is damaged or was combined from two files.'
        )
    listed = set(listed)
    absent = sorted(listed - set(part.layers))
    if absent:
        raise CheckpointError(
            f'{what}: the file lists {len(absent)} adapted layers without tensors; the first is {absent[0]}.'
        )
    return set(part.layers) - listed
