"""Recipe and initial weights of a small base, which determine its trained weights and its cache key."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from transformers import CLIPTextModel

from rass_mm.demo.base.images import ConfiguredImages
from rass_mm.diffusion.base import DiffusionBase
from rass_mm.diffusion.base_loading import load_unet, load_vae, load_whole
from rass_mm.diffusion.base_weights import weights_hash
from rass_mm.diffusion.known_bases import LAYOUTS
from rass_mm.errors import BaseFolderError, ConfigError
from rass_mm.files.hashing import json_sha256

FORMAT = 3
"""Part of the cache key. Increase it when a change of the code that trains changes the trained weights."""


@dataclass(frozen=True)
class BaseRecipe:
    """Settings that determine the trained weights of a small base.

    Args:
        scenes: number of drawn scenes, unless other images are given.
        image_size: side of a drawn scene in pixels.
        vae_steps: number of training steps of the autoencoder.
        vae_batch: number of crops per training step of the autoencoder.
        vae_crop: side of a crop for the autoencoder, in pixels.
        vae_rate: maximum learning rate of the autoencoder.
        unet_steps: number of training steps of the UNet and the text encoder.
        unet_batch: number of crops per training step of the UNet.
        unet_crop: side of a crop for the UNet, in latent pixels.
        unet_rate: maximum learning rate of the UNet and the text encoder.
        empty_prompts: probability of an empty caption.
        seed: seed of the weights, crops and noise.
        snr_gamma: gamma of the Min-SNR loss weights (Hang et al., ICCV 2023); None weights all timesteps equally.
    """

    scenes: int = 512
    image_size: int = 128
    vae_steps: int = 160
    vae_batch: int = 8
    vae_crop: int = 64
    vae_rate: float = 2e-3
    unet_steps: int = 200
    unet_batch: int = 16
    unet_crop: int = 16
    unet_rate: float = 1e-3
    empty_prompts: float = 0.1
    seed: int = 0
    snr_gamma: float | None = None

    def check(self, size: int | None = None) -> None:
        """Checks that the networks can process the crops, and that the images are at least as large.

        Args:
            size: shorter side of the images in pixels; None for drawn scenes.

        Raises:
            ConfigError: a crop has a wrong size.
        """
        layout, size = LAYOUTS['scenes-tiny'], self.image_size if size is None else size
        stride, multiple = (2 ** (len(layout[part]['block_out_channels']) - 1) for part in ('vae', 'unet'))
        for name, side, step, most in (
            ('vae-crop', self.vae_crop, stride, size),
            ('unet-crop', self.unet_crop, multiple, size // stride),
        ):
            if side % step or not step <= side <= most:
                raise ConfigError(
                    f'--{name} is {side}, but it must be a multiple of {step} from {step} to {most // step * step}, '
                    f'because the images have {size} pixels. Set --{name} to such a number.'
                )

    def key(self, source: ConfiguredImages | None = None, start: 'Start | None' = None) -> str:
        """Returns the cache key, a hash of `FORMAT`, the recipe, the layout and, if given, images and initial base."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        parts = [FORMAT, given, LAYOUTS['scenes-tiny'], *([source.key] if source else [])]
        parts += [start.record] if start else []
        return json_sha256(parts)[:12]


@dataclass(frozen=True)
class Start:
    """Small base that provides the initial weights of a training run.

    Its latent scaling factor is kept, unless `fresh_unet` is set and the autoencoder is trained further.

    Args:
        base: the base.
        fresh_unet: whether to use only the autoencoder. The UNet and the text encoder then start from random weights.
    """

    base: DiffusionBase
    fresh_unet: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """Values that identify the initial weights in the record of the training."""
        parts = ('vae',) if self.fresh_unet else ('unet', 'vae', 'text_encoder')
        return {
            'weights': weights_hash(self.base.folder, parts),
            'scale': self.base.scaling_factor,
            'fresh_unet': self.fresh_unet,
        }

    def load(self, models: dict[str, nn.Module]) -> None:
        """Loads the weights into newly built models, a dict with the keys 'vae', 'unet' and 'text_encoder'.

        Raises:
            BaseFolderError: the folder is damaged or has a different layout.
        """
        loaded = {'vae': load_vae(self.base, decoder=True)}
        if not self.fresh_unet:
            loaded |= {
                'unet': load_unet(self.base),
                'text_encoder': load_whole(CLIPTextModel, self.base.folder, 'text_encoder'),
            }
        for name, part in loaded.items():
            try:
                models[name].load_state_dict(part.state_dict())
            except RuntimeError as error:
                raise BaseFolderError(
                    f'{self.base.folder / name} cannot initialize the training: its layout is not that of the small '
                    f'base ({str(error).splitlines()[-1].strip()}). Pass a folder written by `rass-mm make-base`.'
                ) from None
        models['vae'].register_to_config(scaling_factor=self.base.scaling_factor)
