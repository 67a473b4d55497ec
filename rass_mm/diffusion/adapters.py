"""Named LoRA adapters of a UNet: add, merge, save, load. One base UNet carries any number of them.

The order matters in diffusers and peft, and this module is where it is kept: adding freezes everything else, so the
full `conv_in` is freed last; merging fuses, unloads and only then allows a new adapter, because adding after a mere
fuse silently takes the fused weights back.
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
"""Endings of the layers that get a LoRA (the released list; `conv_out`, whose output RASS never uses, is not in it)."""
HEADER = 'rass_mm.adapter'
CONV_IN = 'conv_in.'
VAE = 'vae.'
"""What the tensors of a VAE adapter start with in a file; OSEDiff's has one beside the UNet's."""


@dataclass(frozen=True)
class AdapterSpec:
    """What a LoRA is made of. The scale of its update is `alpha / rank` (8/4 = 2 in the released files)."""

    rank: int = 4
    alpha: float = 8.0
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True)
class Adapter:
    """Content of an adapter file, as `read_adapter` gives it.

    Args:
        path: the file, for messages.
        header: has `name`, `rank`, `alpha`, `targets`, `base`, `hash` and may have `recipe`, `vae`, `source`.
        tensors: by their names in the file.
    """

    path: str | os.PathLike
    header: dict[str, Any]
    tensors: dict[str, Tensor]


AdapterSource = str | os.PathLike | Adapter
"""An adapter file, or its content where it has been read already: files are large, and reading checks every value."""


def target_layers(unet: nn.Module, targets: tuple[str, ...] = TARGETS) -> list[str]:
    """Full names of the layers whose name ends in one of `targets`."""
    endings = tuple('.' + target for target in targets)
    # A layer that already carries an adapter is wrapped: its weights are called <layer>.base_layer.
    layers = {name.removesuffix('.base_layer'): module for name, module in unet.named_modules() if '.lora_' not in name}
    return [
        name
        for name, module in layers.items()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and ('.' + name).endswith(endings)
    ]


def layer_group(name: str) -> str:
    """'encoder' (down blocks and conv_in), 'decoder' (up blocks) or 'mid', as the released files group them."""
    if name.startswith(('down_blocks', 'conv_in')):
        return 'encoder'
    return 'decoder' if name.startswith('up_blocks') else 'mid'


def add_adapter(
    unet: UNet2DConditionModel, name: str, spec: AdapterSpec | None = None, train_conv_in: bool = True
) -> None:
    """Adds a LoRA called `name` (A drawn with std 1/rank, B = 0) and makes it, and `conv_in` if asked, trainable.

    The output of the UNet does not change, because B is 0. All other parameters end up frozen.

    Raises:
        AdapterError: the name is taken, or no layer fits the targets.
    """
    spec = spec or AdapterSpec()
    if name in getattr(unet, 'peft_config', {}):
        raise AdapterError(
            f'The UNet already has an adapter {name!r}. Merge it (merge_adapter) or choose another name.'
        )
    layers = target_layers(unet, spec.targets)
    if not layers:
        raise AdapterError(f'No layer of the UNet ends in one of {spec.targets}: nothing to adapt.')
    unet.requires_grad_(False)
    config = LoraConfig(r=spec.rank, lora_alpha=spec.alpha, target_modules=layers, init_lora_weights='gaussian')
    unet.add_adapter(config, adapter_name=name)
    train_adapter(unet, name, train_conv_in)


def train_adapter(unet: UNet2DConditionModel, name: str, train_conv_in: bool = True) -> None:
    """Activates adapter `name` alone and frees its tensors (and the full `conv_in`) for training, nothing else."""
    unet.set_adapter(name)
    for key, parameter in unet.named_parameters():
        own = f'.lora_A.{name}.' in key or f'.lora_B.{name}.' in key
        parameter.requires_grad_(own or (train_conv_in and _is_conv_in(key)))


def _is_conv_in(key: str) -> bool:
    return key.startswith(CONV_IN) and 'lora_' not in key


def merge_adapter(unet: UNet2DConditionModel, name: str) -> None:
    """Adds the update of adapter `name` to the base weights and removes every adapter; the output stays the same.

    Raises:
        AdapterError: there is no such adapter, other adapters would be lost, or the merged weights are not finite.
    """
    present = list(getattr(unet, 'peft_config', {}))
    if present != [name]:
        raise AdapterError(
            f'Cannot merge adapter {name!r}: the UNet carries {present or "no adapters"}, it alone is needed.'
        )
    bad = [key for key, value in unet.named_parameters() if not torch.isfinite(value).all()]
    if bad:
        raise AdapterError(
            f'Cannot merge adapter {name!r}: {bad[0]} holds NaN or infinity ({len(bad)} tensors in all).'
        )
    unet.set_adapter(name)
    try:
        unet.fuse_lora(safe_fusing=True, adapter_names=[name])
    except ValueError as error:  # peft's own check of the merged values
        raise AdapterError(f'Cannot merge adapter {name!r}: {error}') from None
    unet.unload_lora()
    leftover = [key for key in unet.state_dict() if 'lora_' in key or 'base_layer' in key]
    if leftover:
        raise AdapterError(
            f'Merging adapter {name!r} left {leftover[0]} behind; the peft version does not unload. See rass-mm doctor.'
        )
    unet.requires_grad_(False)


def adapter_parameters(unet: UNet2DConditionModel, name: str) -> dict[str, nn.Parameter]:
    """The parameters of adapter `name` (`<layer>.lora_A.weight`, ...) plus the full `conv_in`, as files name them."""
    found = {}
    for key, parameter in unet.named_parameters():
        if f'.lora_A.{name}.' in key or f'.lora_B.{name}.' in key:
            found[key.replace(f'.{name}.', '.')] = parameter
        elif _is_conv_in(key):
            found[CONV_IN + ('weight' if key.endswith('weight') else 'bias')] = parameter
    return found


def adapter_tensors(unet: UNet2DConditionModel, name: str) -> dict[str, Tensor]:
    """The tensors of `adapter_parameters`, on the CPU."""
    return {key: value.detach().cpu().contiguous() for key, value in adapter_parameters(unet, name).items()}


def copy_adapter(unet: UNet2DConditionModel, name: str, source: AdapterSource, base_identity: dict[str, str]) -> None:
    """Copies a file's tensors into adapter `name` and `conv_in`, as the start of a training.

    Raises:
        AdapterError: the file is unusable, of another base, or of another rank, scale or targets.
    """
    adapter = as_adapter(source)
    path, header, tensors = adapter.path, adapter.header, adapter.tensors
    check_base(adapter, base_identity)
    if 'vae' in header:
        raise AdapterError(
            f'{path} also adapts the VAE, which is frozen in training: use it (trainable=False), do not train it on.'
        )
    own, config = adapter_parameters(unet, name), unet.peft_config[name]
    wrong = sorted(own.keys() ^ tensors.keys())
    wrong += [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
    if wrong or header['alpha'] != config.lora_alpha:
        raise AdapterError(
            f'{path} has rank {header["rank"]} and alpha {header["alpha"]}, this model rank {config.r} and alpha '
            f'{config.lora_alpha}; {len(wrong)} tensors differ{", the first is " + wrong[0] if wrong else ""}. Set '
            f'adapter.rank and adapter.alpha to those of the file.'
        )
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(tensors[key])


def content_hash(header: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Hash of all that shapes the update: rank, alpha, targets, and names, shapes and all values of the tensors."""
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
    """Writes adapter `name` and the full `conv_in` to one safetensors file with a JSON header (spec, base, hash).

    `recipe` says how the adapter is to be used (a restorer's form, timestep, prompt and classes); it goes into the
    header as it is.
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
    """Writes an adapter file: `header` has `name`, `rank`, `alpha`, `targets`, `base` and may have `recipe`, `vae`."""
    header = {**header, 'hash': content_hash(header, tensors)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER: json.dumps(header)})


def as_adapter(source: AdapterSource) -> Adapter:
    """The adapter itself, or the content of its file, see `read_adapter`."""
    return source if isinstance(source, Adapter) else read_adapter(source)


def read_adapter(path: str | os.PathLike) -> Adapter:
    """Reads an adapter file and checks its hash and its values.

    Raises:
        AdapterError: no such file, damaged, not written by `save_adapter`, its content was changed, or it holds values
            that are not finite.
    """
    try:
        with safe_open(path, 'pt') as file:
            header = json.loads((file.metadata() or {}).get(HEADER, 'null'))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except FileNotFoundError:
        raise AdapterError(f'Adapter file {path} does not exist.') from None
    except Exception as error:  # safetensors has one error type of its own, outside any common base class
        raise AdapterError(f'Adapter file {path} is damaged or not safetensors ({error}).') from None
    if header is None:
        raise AdapterError(
            f'{path} is a safetensors file without the {HEADER!r} header: not an adapter of this package.'
        )
    if content_hash(header, tensors) != header['hash']:
        raise AdapterError(
            f'{path}: the content does not match the hash in the header; the file was changed or damaged.'
        )
    bad = [key for key in sorted(tensors) if not torch.isfinite(tensors[key]).all()]
    if bad:
        raise AdapterError(
            f'{path}: {bad[0]} holds NaN or infinity ({len(bad)} tensors in all); its training had diverged. Take an '
            f'adapter of an earlier checkpoint.'
        )
    return Adapter(path, header, tensors)


def check_base(adapter: Adapter, base_identity: dict[str, str]) -> None:
    """Raises an AdapterError that shows both identities where an adapter was trained on another base."""
    own = adapter.header['base']
    differing = [key for key in ('config', 'weights') if own[key] != base_identity[key]]
    if differing and base_identity['weights'] != 'none':
        raise AdapterError(
            f'Adapter {adapter.path} belongs to another base ({" and ".join(differing)} differ).\n  adapter: {own}\n'
            f'  given:   {base_identity}\nGive the base it was trained on, or train an adapter on this one.'
        )


def load_adapter(
    unet: UNet2DConditionModel, source: AdapterSource, base_identity: dict[str, str], name: str | None = None
) -> dict[str, Any]:
    """Adds the UNet's adapter of a file to it, frozen, under its own or the given name; returns the file's header.

    Raises:
        AdapterError: the file is unusable, or was trained on another base (both identities are shown).
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
    except RuntimeError as error:  # of another shape
        raise AdapterError(f'{path} does not fit this model: {str(error).splitlines()[-1].strip()}') from None
    if unknown:
        raise AdapterError(f'{path}: {len(unknown)} tensors have no place in this model, the first is {unknown[0]}.')


def merge_file(
    unet: UNet2DConditionModel, vae: AutoencoderKL | None, source: AdapterSource, base_identity: dict[str, str]
) -> dict[str, Any]:
    """Merges an adapter file into the UNet, and into the VAE where the file has a part for it; returns its header.

    Args:
        unet: the base's UNet, without adapters.
        vae: the base's VAE, or its encoder alone; None where a tiny autoencoder is in its place.
        source: the file or its content.
        base_identity: of the base that both come from.

    Raises:
        AdapterError: as `load_adapter` and `merge_adapter`; or the file has a VAE part and there is no VAE.
    """
    adapter = as_adapter(source)
    header, path = adapter.header, adapter.path
    load_adapter(unet, adapter, base_identity, name='merged')
    merge_adapter(unet, 'merged')
    if 'vae' not in header:
        return header
    if vae is None:
        raise AdapterError(
            f"{path} also adapts the base's VAE, but a tiny autoencoder is in its place. Keep the VAE's encoder: leave "
            "the tiny autoencoder out, or use it for the decoder only (ends='decoder')."
        )
    lora = {key.removeprefix(VAE): value for key, value in adapter.tensors.items() if key.startswith(VAE)}
    _attach(vae, 'merged', header['vae'], lora, path)
    merge_adapter(vae, 'merged')
    return header
