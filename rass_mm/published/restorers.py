"""Conversion of the files of OSEDiff and SCR.

Both files contain three LoRA adapters and the full `conv_in` of the UNet. OSEDiff's file also contains a LoRA of the
VAE.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rass_mm.diffusion.adapter_files import VAE
from rass_mm.diffusion.adapters import CONV_IN
from rass_mm.diffusion.base import DiffusionBase
from rass_mm.diffusion.base_loading import models_on_meta
from rass_mm.diffusion.one_step import FORMS
from rass_mm.errors import CheckpointError
from rass_mm.published.lora import ALPHA, LoraPart, check_declared, collect_lora
from rass_mm.published.reading import OSEDIFF, listed_tensors

UNET_LISTS = tuple(f'unet_lora_{group}_modules' for group in ('encoder', 'decoder', 'others'))
VAE_LIST = 'vae_lora_encoder_modules'
UNET, VAE_ENTRY = 'state_dict_unet', 'state_dict_vae'
SETTINGS = {*UNET_LISTS, VAE_LIST, 'rank_unet', 'rank_vae'}
UNLISTED = "the file's module lists do not name its layer, so the published reader does not load it"


@dataclass(frozen=True)
class Mapped:
    """A converted restorer.

    Args:
        header: header of the adapter file, see `write_adapter`.
        tensors: new name -> float32 tensor.
        used: published name -> new name.
        left_out: published name -> reason why the tensor was not converted.
    """

    header: dict[str, Any]
    tensors: dict[str, Tensor]
    used: dict[str, str]
    left_out: dict[str, str]


def map_restorer(kind: str, content: dict[str, Any], base: DiffusionBase, form: str | None = None) -> Mapped:
    """Converts the file of a published restorer to one adapter of this package.

    Args:
        kind: 'osediff' or 'scr'.
        content: the top-level dict of the file.
        base: the base that the restorer was trained on. Only its configs and its identity are used.
        form: 'residual' (at timestep 1) or 'x0' (at timestep 999). None uses 'x0' for OSEDiff and 'residual' for SCR.

    Raises:
        CheckpointError: a tensor is unknown or has the wrong shape, the ranks differ or are not the declared ones, or
            tensors are missing.
    """
    form = form or ('x0' if kind == OSEDIFF else 'residual')
    models = models_on_meta(base)
    used, left_out = {}, {}
    unet = _collect(content, UNET, UNET_LISTS, 'rank_unet', models['unet'], used, left_out)
    tensors = {**unet.tensors, **_conv_in(content[UNET], models['unet'], used)}
    header = {'name': 'scr', 'rank': unet.rank, 'alpha': ALPHA, 'targets': unet.layers, 'base': base.identity}
    if kind == OSEDIFF:
        vae = _collect(content, VAE_ENTRY, (VAE_LIST,), 'rank_vae', models['vae'], used, left_out, VAE)
        header['vae'] = {'rank': vae.rank, 'alpha': ALPHA, 'targets': vae.layers}
        tensors |= {VAE + name: value for name, value in vae.tensors.items()}
    header['recipe'] = {'form': form, 'timestep': FORMS[form], 'prompt': 'EmptyPrompt', 'classes': []}
    handled = used.keys() | left_out.keys()
    for name in listed_tensors(content):
        if name not in handled:
            entry = name.split('/')[0]
            if entry in (UNET, VAE_ENTRY) and not (entry == VAE_ENTRY and kind != OSEDIFF):
                raise CheckpointError(
                    f'{name} is unknown: it belongs neither to a LoRA nor to the full conv_in. Use the file as '
                    f'published by its authors.'
                )
            left_out[name] = f'{kind} does not use the entry {entry}'
    left_out |= {
        f'{entry} (no tensors)': 'unknown setting'
        for entry in content.keys() - SETTINGS - {UNET, VAE_ENTRY}
        if not any(name.split('/')[0] == entry for name in left_out)
    }
    return Mapped(
        header, {name: value.detach().float().contiguous() for name, value in tensors.items()}, used, left_out
    )


def _collect(
    content: dict[str, Any],
    entry: str,
    lists: tuple[str, ...],
    rank: str,
    model: Any,
    used: dict[str, str],
    left_out: dict[str, str],
    prefix: str = '',
) -> LoraPart:
    """Collects the LoRA of one network and adds the names of its tensors to `used` and `left_out`."""
    absent = [name for name in (entry, *lists) if name not in content]
    if absent:
        raise CheckpointError(f'The file has no entry {absent[0]!r}. Use the file as published by its authors.')
    part = collect_lora(content[entry], model, entry)
    if not part.tensors:
        raise CheckpointError(f'{entry} contains no LoRA tensors, so there is nothing to convert.')
    unlisted = check_declared(part, (name for key in lists for name in content[key]), content.get(rank), entry)
    for name in list(part.tensors):
        source = f'{entry}/{part.sources[name]}'
        if name.rpartition('.lora_')[0] in unlisted:
            left_out[source] = UNLISTED
            del part.tensors[name]
        else:
            used[source] = prefix + name
    return part


def _conv_in(tensors: dict[str, Tensor], model: Any, used: dict[str, str]) -> dict[str, Tensor]:
    """Returns the weight and the bias of the full `conv_in`, which is trained in addition to its LoRA."""
    found = {}
    for end in ('weight', 'bias'):
        names = [name for name in (f'{CONV_IN}base_layer.{end}', CONV_IN + end) if name in tensors]
        if not names:
            raise CheckpointError(
                f'{UNET} has no {CONV_IN}base_layer.{end}. Use a file that contains the full conv_in.'
            )
        value, needed = tensors[names[0]], getattr(model.conv_in, end).shape
        if value.shape != needed:
            raise CheckpointError(
                f'{names[0]} has shape {tuple(value.shape)}, but this base needs {tuple(needed)}. Set --base to '
                f'the Stable Diffusion folder that the file was made for.'
            )
        found[CONV_IN + end] = value
        used[f'{UNET}/{names[0]}'] = CONV_IN + end
    return found
