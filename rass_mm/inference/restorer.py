"""Trained restorer for photos, which is loaded once and restores files, arrays and Pillow images."""

import os
from collections.abc import Sequence

import torch

from rass_mm.devices import chosen_device
from rass_mm.diffusion import restorer as diffusion
from rass_mm.diffusion.adapter_files import AdapterSource
from rass_mm.engine.ready import chosen_preparation, prepare
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.inference.photos import Photo, as_picture
from rass_mm.inference.precision import default_preparation
from rass_mm.inference.restore import RestoreOptions, restore_image
from rass_mm.inference.results import Restoration


class PhotoRestorer:
    """Trained restorer with its options, as returned by `load_restorer`.

    Args:
        network: a `rass_mm.diffusion.restorer.Restorer`.
        options: see `RestoreOptions`.
    """

    def __init__(self, network: diffusion.Restorer, options: RestoreOptions) -> None:
        self.network, self.options = network, options

    def predict(self, images: Photo | Sequence[Photo], max_pixels: int = MAX_PIXELS) -> Restoration | list[Restoration]:
        """Restores one image, or each image of a list.

        Args:
            images: an image file, an array, a Pillow image, or a list of these. Arrays are RGB, not BGR as in mmseg:
                (H, W, 3) or grey (H, W), uint8, uint16, or float32 in [0, 1].
            max_pixels: largest number of pixels of a file, see `read_picture`.

        Returns:
            The restored image, or a list of restored images for a list.

        Raises:
            DataError: an image cannot be read.
            AdapterError: the network returns NaN or infinity.
            ConfigError: the options do not suit the network, or its device has too little memory.
        """
        if isinstance(images, list | tuple):
            return [self.predict(image, max_pixels) for image in images]
        picture = as_picture(images, max_pixels)
        return Restoration(restore_image(picture.pixels, self.network, self.options, depth=picture.depth), picture)


def load_restorer(
    adapter: AdapterSource,
    base: str | os.PathLike | Sequence[str | os.PathLike],
    autoencoder: str | os.PathLike | None = None,
    ends: str = 'decoder',
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    options: RestoreOptions | None = None,
    compile: bool = False,
    deterministic: bool = False,
) -> PhotoRestorer:
    """Loads a trained restorer for images of any size.

    Args:
        adapter: an adapter file written by training (`scr_*.safetensors`), or its content.
        base: the base folder that the restorer was trained on, or several folders in order of preference.
        autoencoder: folder of a tiny autoencoder that replaces the VAE's decoder; None keeps the VAE.
        ends: what `autoencoder` replaces: 'decoder' or 'both' (encoder and decoder).
        device: e.g. 'cpu' or 'cuda:1'; None uses CUDA if it is available.
        dtype: 'float32', 'bfloat16' or 'float16', or the torch dtype of this name; None uses that of
            `rass_mm.inference.precision.default_preparation`.
        options: see `RestoreOptions`; None uses its defaults.
        compile: whether to compile the networks with `torch.compile`, which takes minutes on a CPU.
        deterministic: whether to compute in float32 with the networks as they were trained. PyTorch's deterministic
            algorithms are then used in the whole process, see `chosen_preparation`.

    Raises:
        AdapterError: the file cannot be used, is not a restorer, or was trained on another base.
        BaseFolderError, ConfigError: the base, the autoencoder, the device or the dtype cannot be used.
    """
    options = options or RestoreOptions()
    place = chosen_device(None if device is None else str(device))
    how = chosen_preparation(dtype, compile, deterministic, default_preparation(place, [base], [adapter]))
    tiles = options.scheme == 'osediff'
    network = diffusion.load_restorer(adapter, base, autoencoder, ends, str(place), latent_tiles=tiles)
    return PhotoRestorer(prepare(network, how) if how else network, options)
