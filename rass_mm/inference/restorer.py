"""Trained restorer for photos, which is loaded once and restores files, arrays and Pillow images."""

import os
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from rass_mm.devices import chosen_device
from rass_mm.diffusion import restorer as diffusion
from rass_mm.diffusion.adapter_files import AdapterSource
from rass_mm.diffusion.pack_base import restorer_files
from rass_mm.engine.ready import chosen_preparation, prepare
from rass_mm.errors import ConfigError
from rass_mm.files.images import Picture
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.inference.packs.restorers import save_restorer
from rass_mm.inference.photos import Photo, as_picture
from rass_mm.inference.precision import Bases, default_preparation
from rass_mm.inference.pretrained import PretrainedMixin
from rass_mm.inference.restore import Apply, RestoreOptions, restore_image, window_count
from rass_mm.inference.results import Restoration

Watch = Callable[[float], None]
"""Function that is called with the finished fraction of an image, in [0, 1]."""


class PhotoRestorer(PretrainedMixin):
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
        return self.restore(as_picture(images, max_pixels))

    def restore(self, picture: Picture, watch: Watch | None = None) -> Restoration:
        """Restores one image.

        Args:
            picture: the image.
            watch: function that is called with the finished fraction of the image, or None.

        Raises:
            AdapterError, ConfigError: see `predict`.
        """
        network, multiple = self.network, self.network.size_multiple
        if watch is not None:
            network = _watched(network, watch, window_count(picture.pixels.shape[:2], self.options, multiple))
        return Restoration(restore_image(picture.pixels, network, self.options, multiple, picture.depth), picture)


def _watched(network: diffusion.Restorer, watch: Watch, total: int) -> Apply:
    """Wraps a network so that each call reports the finished fraction of `total` windows."""
    done = 0

    def apply(images: Tensor) -> Tensor:
        nonlocal done
        outputs = network(images)
        done += len(images)
        watch(min(done / total, 1.0))
        return outputs

    apply.device = network.device
    return apply


def load_restorer(
    adapter: AdapterSource,
    base: Bases | None = None,
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
        adapter: an adapter file written by training (`scr_*.safetensors`), its content, or the folder of a pack.
        base: the base folder that the restorer was trained on, or several folders in order of preference. None uses
            that of the pack.
        autoencoder: folder of a tiny autoencoder that replaces the VAE's decoder; None keeps the VAE.
        ends: what `autoencoder` replaces: 'decoder' or 'both' (encoder and decoder).
        device: e.g. 'cpu' or 'cuda:1'; None uses the first one of CUDA, MPS and the CPU.
        dtype: 'float32', 'bfloat16' or 'float16', or the torch dtype of this name; None uses that of
            `rass_mm.inference.precision.default_preparation`.
        options: see `RestoreOptions`; None uses its defaults.
        compile: whether to compile the networks with `torch.compile`, which takes minutes on a CPU.
        deterministic: whether to compute in float32 with the networks as they were trained. PyTorch's deterministic
            algorithms are then used in the whole process, see `chosen_preparation`.

    Raises:
        AdapterError: the file cannot be used, is not a restorer, or was trained on another base.
        BaseFolderError, ConfigError: the base, the autoencoder, the device or the dtype cannot be used.
        PackError: the pack was changed or is not that of a restorer.
    """
    options = options or RestoreOptions()
    place = chosen_device(None if device is None else str(device))
    given, (adapter, base) = adapter, restorer_files(adapter, base)
    if base is None:
        raise ConfigError('The base folder that the adapter was trained on is missing. Set base.')
    how = chosen_preparation(dtype, compile, deterministic, default_preparation(place, [base], [adapter]))
    tiles = options.scheme == 'osediff'
    network = diffusion.load_restorer(adapter, base, autoencoder, ends, str(place), latent_tiles=tiles)
    restorer = PhotoRestorer(prepare(network, how) if how else network, options)
    restorer.saver = partial(save_restorer, given, network.model.base.folder)
    return restorer


PhotoRestorer.loader = staticmethod(load_restorer)
