"""Loading of the networks of a base, and checks that their weights are complete and finite."""

from pathlib import Path
from typing import Any

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers import AutoencoderKL, UNet2DConditionModel

from rass_mm.diffusion.base import DOWNLOAD, DiffusionBase
from rass_mm.diffusion.base_schemas import Index
from rass_mm.diffusion.base_weights import check_types, on_meta, weight_files
from rass_mm.errors import BaseFolderError
from rass_mm.files.schemas import read_json


def load_unet(base: DiffusionBase) -> UNet2DConditionModel:
    """Loads the UNet of the base in float32, frozen and in eval mode (without values on the default device 'meta')."""
    return _load(UNet2DConditionModel, base, 'unet')


def load_vae(base: DiffusionBase, decoder: bool = False) -> AutoencoderKL:
    """Loads the VAE of the base in float32, frozen and in eval mode.

    Unless `decoder` is True, the decoder is removed (49.5 M parameters in Stable Diffusion).
    """
    vae = _load(AutoencoderKL, base, 'vae')
    if not decoder:
        vae.decoder = vae.post_quant_conv = None
    return vae


def _load(model_class: type, base: DiffusionBase, part: str) -> Any:
    if on_meta():
        return model_class.from_config(base.configs[part]).requires_grad_(False).eval()
    return load_whole(model_class, base.folder, part, torch_dtype=torch.float32)


def quiet_loading() -> None:
    """Disables the progress bars that diffusers and transformers show for every small file, to keep logs readable."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def load_whole(model_class: type, folder: Path, part: str, **options: Any) -> Any:
    """Loads a part of a base, frozen and in eval mode, and checks that its files contain all weights.

    Without this check, diffusers and transformers initialise missing weights randomly and only log a warning.

    Args:
        model_class: a class with the method `from_pretrained`.
        folder: the base folder.
        part: name of the subfolder, or '.' for the folder itself.
        options: further arguments of `from_pretrained`.

    Raises:
        BaseFolderError: a file is damaged, lacks weights, or does not match the config of the part.
    """
    files, variant = weight_files(folder, part)
    for file in files:
        check_types(file)
    for index in (folder / part).glob('*.safetensors.index*.json'):
        read_json(index, Index, DOWNLOAD, BaseFolderError)
    quiet_loading()
    try:
        model, report = model_class.from_pretrained(
            str(folder / part),
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # on values that make no sense, the constructors raise almost any error
        reason = str(error).strip() or type(error).__name__
        raise BaseFolderError(f'{files[0]} does not match {folder / part}/config.json ({reason}). {DOWNLOAD}') from None
    missing = sorted(report['missing_keys'])
    if missing:
        raise BaseFolderError(
            f'{files[0]} lacks {len(missing)} of the weights required by {folder / part}/config.json, e.g. '
            f'{missing[0]}. Download the folder again.'
        )
    _check_values(model, files[0])
    return model.requires_grad_(False).eval()


def _check_values(model: Any, file: Path) -> None:
    """Raises a BaseFolderError if weights are not finite or all weights are zero."""
    bad = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
    if bad:
        raise BaseFolderError(
            f'{file}: {bad[0]} contains NaN or infinity ({len(bad)} such tensors in total). {DOWNLOAD}'
        )
    if not any(value.any() for value in model.parameters()):
        raise BaseFolderError(f'{file}: all weights are zero. {DOWNLOAD}')


def models_on_meta(base: DiffusionBase) -> dict[str, Any]:
    """Builds the complete UNet and VAE on the device 'meta'. Returns them in a dict with the keys 'unet' and 'vae'."""
    with torch.device('meta'):
        return {
            'unet': UNet2DConditionModel.from_config(base.configs['unet']),
            'vae': AutoencoderKL.from_config(base.configs['vae']),
        }
