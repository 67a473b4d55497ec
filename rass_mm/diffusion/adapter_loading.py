"""Loading of adapter files into models: as the start of a training, as an adapter, or merged into the base weights."""

import os
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import set_peft_model_state_dict
from torch import Tensor, nn

from rass_mm.diffusion.adapter_checks import AGAIN, check_complete
from rass_mm.diffusion.adapter_files import VAE, Adapter, AdapterSource, as_adapter
from rass_mm.diffusion.adapters import (
    CONV_IN,
    AdapterSpec,
    adapter_parameters,
    add_adapter,
    is_conv_in,
    merge_adapter,
    target_layers,
)
from rass_mm.errors import AdapterError


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
        if is_conv_in(key)
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
