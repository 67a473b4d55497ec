"""Named LoRA adapters of a UNet: adding, merging, saving and loading. A base UNet can have any number of adapters.

The order of operations matters in diffusers and peft, and this module ensures the correct order. Adding an adapter
freezes all other parameters, so the full `conv_in` is unfrozen last. Merging fuses and unloads an adapter before
another one can be added, because adding an adapter after only fusing silently reverts the fused weights.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rass_mm.errors import AdapterError
from rass_mm.files.atomic import atomic_path

TARGETS = (
    *('to_q', 'to_k', 'to_v', 'to_out.0', 'conv', 'conv1', 'conv2', 'conv_in', 'conv_shortcut'),
    *('proj_in', 'proj_out', 'ff.net.0.proj', 'ff.net.2'),
)
"""Name endings of the layers that get a LoRA, as released. `conv_out` is excluded, because RASS does not use it."""
HEADER = 'rass_mm.adapter'
CONV_IN = 'conv_in.'
VAE = 'vae.'
"""Prefix of the tensors of a VAE adapter in a file. OSEDiff has a VAE adapter in addition to that of the UNet."""


@dataclass(frozen=True)
class AdapterSpec:
    """Rank, alpha and target layers of a LoRA. The scale of its update is `alpha / rank` (8/4 = 2 as released)."""

    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True)
class Adapter:
    """Content of an adapter file, as returned by `read_adapter`.

    Args:
        path: the file, for messages.
        header: the keys `name`, `rank`, `alpha`, `targets`, `base`, `hash` and optionally `recipe`, `vae`, `source`.
        tensors: the tensors by their names in the file.
    """

    path: str | os.PathLike
    header: dict[str, Any]
    tensors: dict[str, Tensor]


AdapterSource = str | os.PathLike | Adapter
"""An adapter file, or its content if it has already been read. Files are large, and reading checks every value."""


def target_layers(unet: nn.Module, targets: tuple[str, ...] = TARGETS) -> list[str]:
    """Returns the full names of the layers with a name that ends in one of `targets`."""
    endings = tuple('.' + target for target in targets)
    # A layer that already has an adapter is wrapped, and its weights are named <layer>.base_layer.
    layers = {name.removesuffix('.base_layer'): module for name, module in unet.named_modules() if '.lora_' not in name}
    return [
        name
        for name, module in layers.items()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and ('.' + name).endswith(endings)
    ]


def layer_group(name: str) -> str:
    """Returns the group of a layer as released: 'encoder' (down blocks and conv_in), 'decoder' (up blocks) or 'mid'."""
    if name.startswith(('down_blocks', 'conv_in')):
        return 'encoder'
    return 'decoder' if name.startswith('up_blocks') else 'mid'


def add_adapter(
    unet: UNet2DConditionModel, name: str, spec: AdapterSpec | None = None, train_conv_in: bool = True
) -> None:
    """Adds a LoRA with the given name and makes it trainable, together with `conv_in` if `train_conv_in` is set.

    A is drawn with a standard deviation of 1/rank and B is 0, so the output of the UNet does not change. All other
    parameters are frozen.

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
        raise AdapterError(f'No layer of the UNet ends in one of {spec.targets}. Set other targets.')
    unet.requires_grad_(False)
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules=layers, init_lora_weights='gaussian')
    unet.add_adapter(config, adapter_name=name)
    train_adapter(unet, name, train_conv_in)


def train_adapter(unet: UNet2DConditionModel, name: str, train_conv_in: bool = True) -> None:
    """Activates adapter `name` and makes its tensors (and the full `conv_in`) the only trainable parameters."""
    unet.set_adapter(name)
    for key, parameter in unet.named_parameters():
        own = f'.lora_A.{name}.' in key or f'.lora_B.{name}.' in key
        parameter.requires_grad_(own or (train_conv_in and _is_conv_in(key)))


def _is_conv_in(key: str) -> bool:
    return key.startswith(CONV_IN) and 'lora_' not in key


def merge_adapter(unet: UNet2DConditionModel, name: str) -> None:
    """Adds the update of adapter `name` to the base weights and removes the adapter. The output stays the same.

    Raises:
        AdapterError: the adapter does not exist, other adapters would be lost, or the merged weights are not finite.
    """
    present = list(getattr(unet, 'peft_config', {}))
    if present != [name]:
        raise AdapterError(
            f'Cannot merge adapter {name!r}: the UNet has {present or "no adapters"}, but it must have only this one.'
        )
    bad = [key for key, value in unet.named_parameters() if not torch.isfinite(value).all()]
    if bad:
        raise AdapterError(
            f'Cannot merge adapter {name!r}: {bad[0]} contains NaN or infinity ({len(bad)} tensors in total).'
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
            f'Merging adapter {name!r} left {leftover[0]} behind, because this version of peft does not unload it. '
            f'Run rass-mm doctor.'
        )
    unet.requires_grad_(False)


def adapter_parameters(unet: UNet2DConditionModel, name: str) -> dict[str, nn.Parameter]:
    """Returns the parameters of adapter `name` and the full `conv_in`, by their names in files."""
    found = {}
    for key, parameter in unet.named_parameters():
        if f'.lora_A.{name}.' in key or f'.lora_B.{name}.' in key:
            found[key.replace(f'.{name}.', '.')] = parameter
        elif _is_conv_in(key):
            found[CONV_IN + ('weight' if key.endswith('weight') else 'bias')] = parameter
    return found


def adapter_tensors(unet: UNet2DConditionModel, name: str) -> dict[str, Tensor]:
    """Returns the tensors of `adapter_parameters` on the CPU."""
    return {key: value.detach().cpu().contiguous() for key, value in adapter_parameters(unet, name).items()}


def copy_adapter(unet: UNet2DConditionModel, name: str, source: AdapterSource, base_identity: dict[str, str]) -> None:
    """Copies the tensors of a file into adapter `name` and `conv_in` to start training from them.

    Raises:
        AdapterError: the file cannot be used, or has another base, rank, scale or other targets.
    """
    adapter = as_adapter(source)
    path, header, tensors = adapter.path, adapter.header, adapter.tensors
    check_base(adapter, base_identity)
    if 'vae' in header:
        raise AdapterError(
            f'{path} also adapts the VAE, which is frozen in training, so this adapter cannot be trained further. Set '
            f'trainable=False to use it.'
        )
    own, config = adapter_parameters(unet, name), unet.peft_config[name]
    wrong = sorted(own.keys() ^ tensors.keys())
    wrong += [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
    if wrong or header['alpha'] != config.lora_alpha:
        raise AdapterError(
            f'{path} has rank {header["rank"]} and alpha {header["alpha"]}, but this model has rank {config.r} and '
            f'alpha {config.lora_alpha}; {len(wrong)} tensors differ{", e.g. " + wrong[0] if wrong else ""}. Set '
            f'adapter.rank and adapter.alpha to those of the file.'
        )
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(tensors[key])


def content_hash(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Computes a hash of rank, alpha and targets, and of the names, shapes and all values of the tensors."""
    described = [header[key] for key in ('rank', 'alpha', 'targets', 'vae') if key in header]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for key in sorted(tensors):
        digest.update(f'{key}{list(tensors[key].shape)}'.encode())
        digest.update(tensors[key].float().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_adapter(
    unet: UNet2DConditionModel,
    name: str,
    path: str | os.PathLike,
    base_identity: dict[str, str],
    recipe: dict[str, Any] | None = None,
) -> None:
    """Writes adapter `name` and the full `conv_in` to a safetensors file with a JSON header (spec, base, hash).

    `recipe` describes how to use the adapter (form, timestep, prompt and classes of a restorer). It is copied to the
    header unchanged.
    """
    tensors = adapter_tensors(unet, name)
    config = unet.peft_config[name]
    header = {
        'name': name,
        'rank': config.r,
        'alpha': config.lora_alpha,
        'targets': sorted(config.target_modules),
        'base': base_identity,
        **({'recipe': recipe} if recipe else {}),
    }
    write_adapter(path, header, tensors)


def write_adapter(path: str | os.PathLike, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Writes an adapter file.

    Args:
        path: the file.
        header: the keys `name`, `rank`, `alpha`, `targets`, `base` and optionally `recipe`, `vae`.
        tensors: the tensors by their names in the file.
    """
    header = {**header, 'hash': content_hash(header, tensors)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER: json.dumps(header)})


def as_adapter(source: AdapterSource) -> Adapter:
    """Returns the adapter itself, or reads it from its file, see `read_adapter`."""
    return source if isinstance(source, Adapter) else read_adapter(source)


def read_adapter(path: str | os.PathLike) -> Adapter:
    """Reads an adapter file and checks its hash and its values.

    Raises:
        AdapterError: the file does not exist, is damaged, was not written by `save_adapter`, was changed, or contains
            values that are not finite.
    """
    try:
        with safe_open(path, 'pt') as file:
            header = json.loads((file.metadata() or {}).get(HEADER, 'null'))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is not a dict)
    except FileNotFoundError:
        raise AdapterError(f'Adapter file {path} does not exist.') from None
    except Exception as error:  # the error type of safetensors has no common base class
        raise AdapterError(f'Adapter file {path} is damaged or not safetensors ({error}).') from None
    if header is None:
        raise AdapterError(
            f'{path} is a safetensors file without the {HEADER!r} header, so it is not an adapter of this package.'
        )
    if content_hash(header, tensors) != header['hash']:
        raise AdapterError(
            f'{path}: the content does not match the hash in the header. The file was changed or damaged.'
        )
    bad = [key for key in sorted(tensors) if not torch.isfinite(tensors[key]).all()]
    if bad:
        raise AdapterError(
            f'{path}: {bad[0]} contains NaN or infinity ({len(bad)} tensors in total), because its training diverged. '
            f'Use an adapter from an earlier checkpoint.'
        )
    return Adapter(path, header, tensors)


def check_base(adapter: Adapter, base_identity: dict[str, str]) -> None:
    """Raises an AdapterError with both identities if an adapter was trained on another base."""
    own = adapter.header['base']
    differing = [key for key in ('config', 'weights') if own[key] != base_identity[key]]
    if differing and base_identity['weights'] != 'none':
        raise AdapterError(
            f'Adapter {adapter.path} was trained on another base ({" and ".join(differing)} differ).\n'
            f'  adapter: {own}\n  given:   {base_identity}\n'
            f'Use the base it was trained on, or train an adapter on this base.'
        )


def load_adapter(
    unet: UNet2DConditionModel, source: AdapterSource, base_identity: dict[str, str], name: str | None = None
) -> dict[str, Any]:
    """Adds the adapter in a file to the UNet, frozen, under its own or the given name. Returns the header of the file.

    Raises:
        AdapterError: the file cannot be used, or was trained on another base. The message contains both identities.
    """
    adapter = as_adapter(source)
    header, tensors = adapter.header, adapter.tensors
    check_base(adapter, base_identity)
    lora = {key: value for key, value in tensors.items() if 'lora_' in key and not key.startswith(VAE)}
    _attach(unet, name or header['name'], header, lora, adapter.path)
    own = {
        ('weight' if key.endswith('weight') else 'bias'): value
        for key, value in unet.named_parameters()
        if _is_conv_in(key)
    }
    with torch.no_grad():
        for part, parameter in own.items():
            parameter.copy_(tensors[CONV_IN + part])
    unet.requires_grad_(False)
    return header


def _attach(
    model: nn.Module, name: str, spec: dict[str, Any], lora: dict[str, Tensor], path: str | os.PathLike
) -> None:
    add_adapter(model, name, AdapterSpec(spec['rank'], spec['alpha'], tuple(spec['targets'])), train_conv_in=False)
    try:
        unknown = set_peft_model_state_dict(model, lora, adapter_name=name).unexpected_keys
    except RuntimeError as error:  # a tensor has another shape
        raise AdapterError(f'{path} does not fit this model: {str(error).splitlines()[-1].strip()}') from None
    if unknown:
        raise AdapterError(f'{path} has {len(unknown)} tensors that do not exist in this model, e.g. {unknown[0]}.')


def merge_file(
    unet: UNet2DConditionModel, vae: AutoencoderKL | None, source: AdapterSource, base_identity: dict[str, str]
) -> dict[str, Any]:
    """Merges an adapter file into the UNet and, if the file has a VAE part, into the VAE. Returns the file's header.

    Args:
        unet: the base's UNet, without adapters.
        vae: the base's VAE, or only its encoder; None if a tiny autoencoder is used instead.
        source: the file or its content.
        base_identity: the identity of the base of both models.

    Raises:
        AdapterError: as in `load_adapter` and `merge_adapter`, or the file has a VAE part but there is no VAE.
    """
    adapter = as_adapter(source)
    header, path = adapter.header, adapter.path
    load_adapter(unet, adapter, base_identity, name='merged')
    merge_adapter(unet, 'merged')
    if 'vae' not in header:
        return header
    if vae is None:
        raise AdapterError(
            f"{path} also adapts the base's VAE, but a tiny autoencoder is used instead. Keep the VAE's encoder: "
            "remove the tiny autoencoder, or use it for the decoder only (ends='decoder')."
        )
    lora = {key.removeprefix(VAE): value for key, value in adapter.tensors.items() if key.startswith(VAE)}
    _attach(vae, 'merged', header['vae'], lora, path)
    merge_adapter(vae, 'merged')
    return header
