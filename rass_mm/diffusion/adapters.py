"""Named LoRA adapters of a UNet: adding, merging, saving and loading.

An adapter file contains the LoRA and the full `conv_in`, i.e. the weight and the bias of the UNet's first convolution,
which can be trained together with the LoRA.

The order of operations matters in diffusers and peft, and this module ensures the correct order. Adding an adapter
freezes all other parameters, so `conv_in` is unfrozen afterwards. Merging fuses an adapter and then unloads it, because
adding another adapter to a UNet in which the first one is fused but not unloaded silently reverts the fused weights.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from rass_mm.config.arguments import Count, Positive
from rass_mm.diffusion.adapter_checks import AGAIN, check_complete, check_header, check_tensors
from rass_mm.errors import AdapterError
from rass_mm.files.atomic import atomic_path
from rass_mm.files.newest import files_in, newest_files
from rass_mm.files.regular import check_regular

TARGETS = (
    *('to_q', 'to_k', 'to_v', 'to_out.0', 'conv', 'conv1', 'conv2', 'conv_in', 'conv_shortcut'),
    *('proj_in', 'proj_out', 'ff.net.0.proj', 'ff.net.2'),
)
"""Default endings of the names of the layers to adapt.

These are the endings in the released code, except for `conv_out`, because RASS does not use the output of that layer.
"""
HEADER = 'rass_mm.adapter'
CONV_IN = 'conv_in.'
SUFFIX = '.safetensors'
VAE = 'vae.'
"""Prefix of the names of VAE tensors in an adapter file. OSEDiff adapts the VAE in addition to the UNet."""


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


@dataclass(frozen=True)
class Adapter:
    """Content of an adapter file, as returned by `read_adapter`.

    Args:
        path: path of the file, for error messages.
        header: metadata with the keys `name`, `rank`, `alpha`, `targets`, `base`, `hash` and optionally `recipe`,
            `vae`, `source`.
        tensors: name in the file -> tensor.
    """

    path: str | os.PathLike
    header: dict[str, Any]
    tensors: dict[str, Tensor]


AdapterSource = str | os.PathLike | Adapter
"""Path of an adapter file, or its content if it has already been read, so that a large file is not read again."""


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
        parameter.requires_grad_(own or (train_conv_in and _is_conv_in(key)))


def _is_conv_in(key: str) -> bool:
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
        elif _is_conv_in(key):
            found[CONV_IN + ('weight' if key.endswith('weight') else 'bias')] = parameter
    return found


def adapter_tensors(unet: UNet2DConditionModel, name: str) -> dict[str, Tensor]:
    """Returns the parameters from `adapter_parameters` as detached, contiguous tensors on the CPU."""
    return {key: value.detach().cpu().contiguous() for key, value in adapter_parameters(unet, name).items()}


def copy_adapter(unet: UNet2DConditionModel, name: str, source: AdapterSource, base_identity: dict[str, str]) -> None:
    """Copies the tensors of an adapter file into adapter `name` and `conv_in`, so that training starts from them.

    Args:
        unet: a UNet that has the adapter `name`, modified in place.
        name: name of the adapter in the UNet.
        source: the file or its content.
        base_identity: identity of the base of the UNet.

    Raises:
        AdapterError: the file cannot be used, adapts the VAE too, or differs from the UNet in its base or in the rank,
            alpha or target layers of the adapter.
    """
    adapter = as_adapter(source)
    path, header, tensors = adapter.path, adapter.header, adapter.tensors
    check_base(adapter, base_identity)
    if 'vae' in header:
        raise AdapterError(
            f'{path} also adapts the VAE. Such an adapter cannot be trained further, because the VAE is frozen in '
            f'training. Set trainable=False to use it.'
        )
    own, config = adapter_parameters(unet, name), unet.peft_config[name]
    wrong = sorted(own.keys() ^ tensors.keys())
    wrong += [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
    if wrong or header['alpha'] != config.lora_alpha:
        raise AdapterError(
            f'{path} does not fit the adapter of this model. The file has rank {header["rank"]} and alpha '
            f'{header["alpha"]}, this model has rank {config.r} and alpha {config.lora_alpha}, and {len(wrong)} '
            f'tensors differ in name or shape{", e.g. " + wrong[0] if wrong else ""}. Set adapter.rank and '
            f'adapter.alpha to those of the file.'
        )
    layers = set(target_layers(unet, tuple(header['targets'])))
    unnamed = sorted({key.rpartition('.lora_')[0] for key in own if '.lora_' in key} - layers)
    if unnamed:
        raise AdapterError(f'{path}: the targets in the header do not name the adapted layer {unnamed[0]}. {AGAIN}')
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(tensors[key])


def content_hash(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Computes the hash of an adapter file (16 hexadecimal digits).

    It depends on the header's `rank`, `alpha`, `targets` and `vae`, and on the name, the shape and all values of each
    tensor.
    """
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
    """Writes an adapter of a UNet and the full `conv_in` to a file, see `write_adapter`.

    Args:
        unet: the UNet.
        name: name of the adapter.
        path: the file to write.
        base_identity: identity of the base of the UNet.
        recipe: settings with which the adapter is used, e.g. the form, timestep, prompt and classes of a restorer. They
            are copied to the header unchanged.
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
    """Writes an adapter file: safetensors with a JSON header, to which the hash of the content is added.

    Args:
        path: the file to write.
        header: metadata with the keys `name`, `rank`, `alpha`, `targets`, `base` and optionally `recipe`, `vae`,
            `source`.
        tensors: name in the file -> tensor.
    """
    header = {**header, 'hash': content_hash(header, tensors)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER: json.dumps(header)})


def as_adapter(source: AdapterSource) -> Adapter:
    """Returns `source` if it is an `Adapter`. Otherwise, reads the file `source`, see `read_adapter`."""
    return source if isinstance(source, Adapter) else read_adapter(source)


def is_adapter(path: str | os.PathLike) -> bool:
    """Returns whether a file is a safetensors file with the header of an adapter."""
    try:
        with safe_open(path, 'pt') as file:
            return HEADER in (file.metadata() or {})
    except Exception:  # the error type of safetensors has no common base class
        return False


def read_adapter(path: str | os.PathLike) -> Adapter:
    """Reads an adapter file and checks its hash and its values.

    Raises:
        AdapterError: the file does not exist, is damaged, was changed, was not written by `write_adapter`, or contains
            values that are not finite. The message names the file.
    """
    if not os.path.isdir(path):
        check_regular(path, 'Pass an adapter file.', AdapterError)
    try:
        with safe_open(path, 'pt') as file:
            header = json.loads((file.metadata() or {}).get(HEADER, 'null'))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is not a dict)
    except FileNotFoundError:
        raise AdapterError(f'Adapter file {path} does not exist. Check the path.') from None
    except Exception as error:  # the error type of safetensors has no common base class
        raise AdapterError(_unreadable(path, error)) from None
    if header is None:
        raise AdapterError(
            f'{path} is a safetensors file without the {HEADER!r} header, so it is not an adapter of this package. '
            f'Pass a file that was written by training or by rass-mm convert.'
        )
    check_header(header, path)
    if content_hash(header, tensors) != header['hash']:
        raise AdapterError(
            f'{path} was changed or damaged: its content does not match the hash in its header. Copy it again.'
        )
    check_tensors(header, tensors, path, VAE)
    bad = [key for key in sorted(tensors) if not torch.isfinite(tensors[key]).all()]
    if bad:
        raise AdapterError(
            f'{path}: {bad[0]} contains NaN or infinity ({len(bad)} such tensors in total). The training of this '
            f'adapter has probably diverged. Use an adapter from an earlier checkpoint.'
        )
    return Adapter(path, header, tensors)


def _unreadable(path: str | os.PathLike, error: Exception) -> str:
    """Describes a file that is not an adapter. For a checkpoint or a folder, names the adapters beside or in it."""
    if os.path.isdir(path):
        return f'Adapter file {path} is a folder. {files_in(path, (SUFFIX,))}'
    with open(path, 'rb') as file:
        zipped = file.read(4) == b'PK\x03\x04'  # as torch.save writes
    if not zipped:
        return f'Adapter file {path} is damaged or not safetensors ({error}). Copy it again.'
    beside = newest_files(Path(path).parent, (SUFFIX,))
    named = f', e.g. {", ".join(map(str, beside))}' if beside else ' to its work dir'
    return f'{path} is a checkpoint of PyTorch, not an adapter file. Pass the {SUFFIX} file that training wrote{named}.'


def check_base(adapter: Adapter, base_identity: dict[str, str]) -> None:
    """Raises an `AdapterError` if an adapter was trained on another base. The message shows both identities."""
    own = adapter.header['base']
    differing = [key for key in ('config', 'weights') if own[key] != base_identity[key]]
    if differing and base_identity['weights'] != 'none':
        raise AdapterError(
            f'Adapter {adapter.path} was trained on another base (different {" and ".join(differing)}).\n'
            f'  adapter: {own}\n  given:   {base_identity}\n'
            f'Use the base that the adapter was trained on, or train an adapter on the given base.'
        )


def load_adapter(
    unet: UNet2DConditionModel, source: AdapterSource, base_identity: dict[str, str], name: str | None = None
) -> dict[str, Any]:
    """Adds the adapter of a file to a UNet, copies the file's `conv_in` into the UNet, and freezes the UNet.

    Args:
        unet: the UNet, modified in place.
        source: the file or its content.
        base_identity: identity of the base of the UNet.
        name: name of the adapter in the UNet. None uses the name in the file.

    Returns:
        The header of the file.

    Raises:
        AdapterError: the file cannot be used, or its adapter was trained on another base.
    """
    adapter = as_adapter(source)
    header, tensors = adapter.header, adapter.tensors
    check_base(adapter, base_identity)
    lora = {key: value for key, value in tensors.items() if 'lora_' in key and not key.startswith(VAE)}
    _attach(unet, name or header['name'], header, lora, adapter.path)
    own = {
        CONV_IN + ('weight' if key.endswith('weight') else 'bias'): value
        for key, value in unet.named_parameters()
        if _is_conv_in(key)
    }
    check_complete(own, tensors, adapter.path)
    with torch.no_grad():
        for part, parameter in own.items():
            if parameter.shape != tensors[part].shape:
                raise AdapterError(
                    f'{adapter.path} does not fit this model: {part} has the shape {tuple(tensors[part].shape)}, but '
                    f'{tuple(parameter.shape)} is needed. {AGAIN}'
                )
            parameter.copy_(tensors[part])
    unet.requires_grad_(False)
    return header


def _attach(
    model: nn.Module, name: str, spec: dict[str, Any], lora: dict[str, Tensor], path: str | os.PathLike
) -> None:
    targets = tuple(spec['targets'])
    if not target_layers(model, targets):
        raise AdapterError(
            f'{path}: no layer name of the model ends in one of the targets of its header, {targets}. {AGAIN}'
        )
    add_adapter(model, name, AdapterSpec(spec['rank'], spec['alpha'], targets), train_conv_in=False)
    check_complete((key for key in adapter_parameters(model, name) if '.lora_' in key), lora, path)
    try:
        unknown = set_peft_model_state_dict(model, lora, adapter_name=name).unexpected_keys
    except RuntimeError as error:  # a tensor has another shape
        raise AdapterError(f'{path} does not fit this model ({str(error).splitlines()[-1].strip()}).') from None
    if unknown:
        raise AdapterError(f'{path} contains {len(unknown)} tensors that this model does not have, e.g. {unknown[0]}.')


def merge_file(
    unet: UNet2DConditionModel, vae: AutoencoderKL | None, source: AdapterSource, base_identity: dict[str, str]
) -> dict[str, Any]:
    """Merges the adapter of a file into the UNet and, if the file also adapts the VAE, into the VAE.

    Args:
        unet: the UNet of the base, without adapters, modified in place.
        vae: the VAE of the base, with or without its decoder, modified in place. None if a tiny autoencoder is used
            instead.
        source: the file or its content.
        base_identity: identity of the base of both models.

    Returns:
        The header of the file.

    Raises:
        AdapterError: the adapter cannot be loaded or merged (see `load_adapter` and `merge_adapter`), or the file
            adapts the VAE and `vae` is None.
    """
    adapter = as_adapter(source)
    header, path = adapter.header, adapter.path
    load_adapter(unet, adapter, base_identity, name='merged')
    _merge(unet, path)
    if 'vae' not in header:
        return header
    if vae is None:
        raise AdapterError(
            f"{path} also adapts the base's VAE, but a tiny autoencoder is used instead. Keep the VAE's encoder: "
            "remove the tiny autoencoder, or use it for the decoder only (ends='decoder')."
        )
    lora = {key.removeprefix(VAE): value for key, value in adapter.tensors.items() if key.startswith(VAE)}
    _attach(vae, 'merged', header['vae'], lora, path)
    _merge(vae, path)
    return header


def _merge(model: nn.Module, path: str | os.PathLike) -> None:
    try:
        merge_adapter(model, 'merged')
    except AdapterError as error:
        raise AdapterError(f'{path}: {error}') from None
