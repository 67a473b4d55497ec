"""Named LoRA adapters of a UNet: adding and merging.

The full `conv_in`, i.e. the weight and the bias of the UNet's first convolution, can be trained together with the LoRA.

The order of operations matters in diffusers and peft, and this module ensures the correct order. Adding an adapter
freezes all other parameters, so `conv_in` is unfrozen afterwards. Merging fuses an adapter and then unloads it, because
adding another adapter to a UNet in which the first one is fused but not unloaded silently reverts the fused weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from typing_extensions import TypedDict

from rass_mm.config.arguments import Count, Positive
from rass_mm.errors import AdapterError

TARGETS = (
    *('to_q', 'to_k', 'to_v', 'to_out.0', 'conv', 'conv1', 'conv2', 'conv_in', 'conv_shortcut'),
    *('proj_in', 'proj_out', 'ff.net.0.proj', 'ff.net.2'),
)
"""Default endings of the names of the layers to adapt.

These are the endings in the released code, except for `conv_out`, because RASS does not use the output of that layer.
"""
CONV_IN = 'conv_in.'
"""Beginning of the names of the parameters of the UNet's first convolution."""


class AdapterSettings(TypedDict, total=False):
    """Types of the values of an `AdapterSpec` in a config."""

    rank: Count
    alpha: Positive
    targets: Sequence[str]


@dataclass(frozen=True)
class AdapterSpec:
    """Settings of a LoRA. The defaults are those of the released code.

    Args:
        rank: rank of the update of each layer, at least 1.
        alpha: numerator of the scale. The update is multiplied by `alpha / rank`, which is 2 by default.
        targets: endings of the names of the layers to adapt.
    """

    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = TARGETS


def target_layers(unet: nn.Module, targets: tuple[str, ...] = TARGETS) -> list[str]:
    """Returns the full names of the linear and convolutional layers whose names end in one of `targets`."""
    endings = tuple('.' + target for target in targets)
    # A layer that already has an adapter is wrapped, and its weights are named <layer>.base_layer.
    layers = {name.removesuffix('.base_layer'): module for name, module in unet.named_modules() if '.lora_' not in name}
    return [
        name
        for name, module in layers.items()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and ('.' + name).endswith(endings)
    ]


def layer_group(name: str) -> str:
    """Returns the group to which the released code assigns a UNet layer.

    The groups are 'encoder' (down blocks and `conv_in`), 'decoder' (up blocks) and 'mid' (all other layers).
    """
    if name.startswith(('down_blocks', 'conv_in')):
        return 'encoder'
    return 'decoder' if name.startswith('up_blocks') else 'mid'


def add_adapter(
    unet: UNet2DConditionModel, name: str, spec: AdapterSpec | None = None, train_conv_in: bool = True
) -> None:
    """Adds a new LoRA to a UNet and freezes all other parameters.

    The LoRA matrix A is drawn from a normal distribution with a standard deviation of `1 / rank`, and the matrix B is
    zero, so the output of the UNet does not change.

    Args:
        unet: the UNet, modified in place.
        name: name of the new adapter.
        spec: settings of the LoRA. None uses the defaults of `AdapterSpec`.
        train_conv_in: whether the full `conv_in` is trainable as well.

    Raises:
        AdapterError: the name is already used, or no layer matches the targets.
    """
    spec = spec or AdapterSpec()
    if name in getattr(unet, 'peft_config', {}):
        raise AdapterError(
            f'The UNet already has an adapter {name!r}. Merge it (merge_adapter) or choose another name.'
        )
    layers = target_layers(unet, spec.targets)
    if not layers:
        raise AdapterError(f'No layer name of the model ends in one of {spec.targets}. Set other targets.')
    unet.requires_grad_(False)
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules=layers, init_lora_weights='gaussian')
    unet.add_adapter(config, adapter_name=name)
    train_adapter(unet, name, train_conv_in)


def train_adapter(unet: UNet2DConditionModel, name: str, train_conv_in: bool = True) -> None:
    """Activates an adapter and freezes all other parameters, except the full `conv_in` if `train_conv_in` is True."""
    unet.set_adapter(name)
    for key, parameter in unet.named_parameters():
        own = f'.lora_A.{name}.' in key or f'.lora_B.{name}.' in key
        parameter.requires_grad_(own or (train_conv_in and is_conv_in(key)))


def is_conv_in(key: str) -> bool:
    """Returns whether a parameter name is that of the weight or the bias of the full `conv_in`."""
    return key.startswith(CONV_IN) and 'lora_' not in key


def merge_adapter(unet: UNet2DConditionModel, name: str) -> None:
    """Adds the update of adapter `name` to the base weights and removes the adapter. The output stays the same.

    Raises:
        AdapterError: the UNet does not have exactly this one adapter, or weights are not finite before or after the
            merge.
    """
    present = list(getattr(unet, 'peft_config', {}))
    if present != [name]:
        raise AdapterError(
            f'Cannot merge adapter {name!r}: it must be the only adapter of the model, but the model has '
            f'{present or "no adapters"}. Merge each adapter before you add another one.'
        )
    parameters = dict(unet.named_parameters())
    finite = torch.stack([torch.isfinite(value).all() for value in parameters.values()]).tolist()  # read at once
    bad = [key for key, fine in zip(parameters, finite, strict=True) if not fine]
    if bad:
        raise AdapterError(
            f'Cannot merge adapter {name!r}: {bad[0]} contains NaN or infinity ({len(bad)} such tensors in total). Use '
            f'an earlier checkpoint of the adapter, or download the base again.'
        )
    unet.set_adapter(name)
    try:
        unet.fuse_lora(safe_fusing=True, adapter_names=[name])
    except ValueError as error:  # raised by peft's check of the merged values
        raise AdapterError(f'Cannot merge adapter {name!r}: {error}') from None
    unet.unload_lora()
    leftover = [key for key in unet.state_dict() if 'lora_' in key or 'base_layer' in key]
    if leftover:
        raise AdapterError(
            f'{leftover[0]} remained after adapter {name!r} was merged, because this version of peft does not unload '
            f'it. Run rass-mm doctor and install the tested version of peft.'
        )
    unet.requires_grad_(False)


def adapter_parameters(unet: UNet2DConditionModel, name: str) -> dict[str, nn.Parameter]:
    """Returns the parameters of adapter `name` and of the full `conv_in`, by their names in adapter files."""
    found = {}
    for key, parameter in unet.named_parameters():
        if f'.lora_A.{name}.' in key or f'.lora_B.{name}.' in key:
            found[key.replace(f'.{name}.', '.')] = parameter
        elif is_conv_in(key):
            found[CONV_IN + ('weight' if key.endswith('weight') else 'bias')] = parameter
    return found


def adapter_tensors(unet: UNet2DConditionModel, name: str) -> dict[str, Tensor]:
    """Returns the parameters from `adapter_parameters` as detached, contiguous tensors on the CPU."""
    return {key: value.detach().cpu().contiguous() for key, value in adapter_parameters(unet, name).items()}
