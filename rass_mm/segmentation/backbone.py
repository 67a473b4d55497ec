"""mmseg backbone over the diffusion extractor."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from rass_mm.diffusion.adapters import AdapterSpec
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.extractor import DiffusionExtractor
from rass_mm.diffusion.features import RASS_FEATURES
from rass_mm.diffusion.stages import StagePoint


@MODELS.register_module()
class DiffusionBackbone(BaseModule):
    """Frozen VAE encoder and LoRA-adapted diffusion UNet as a feature backbone.

    Args:
        base: Stable Diffusion folder in diffusers layout, or several in order of preference.
        expect: what the base must be, see `read_base`.
        scr_adapter: adapter file of a trained restorer, merged into the UNet before the new LoRA; None leaves it out.
        adapter: `rank` and `alpha` of the new LoRA.
        features: names of the features, see `rass_mm.diffusion.features`.
        train_parameters: 'adapter', 'unet' or 'nothing'.
        timestep: the timestep the UNet is told.
        sample_latent: draw the latent instead of taking the posterior's mode.
        gradient_checkpointing: recompute the UNet's activations in the backward pass.
        resize_features: accept sides that are multiples of the VAE's stride (8) only, see `DiffusionExtractor`.
    """

    def __init__(
        self,
        base: str | Sequence[str],
        expect: dict[str, Any] | None = None,
        scr_adapter: str | None = None,
        adapter: dict[str, Any] | None = None,
        features: Sequence[str] = RASS_FEATURES,
        train_parameters: str = 'adapter',
        timestep: int = 1,
        sample_latent: bool = False,
        gradient_checkpointing: bool = False,
        resize_features: bool = False,
    ) -> None:
        super().__init__()
        self.base = read_base(base, expect)
        self.identity = self.base.identity  # now: under the meta device there are no weights to identify
        self.extractor = DiffusionExtractor(
            self.base,
            features=features,
            merged_adapter=scr_adapter,
            adapter=AdapterSpec(**(adapter or {})),
            train=train_parameters,
            timestep=timestep,
            sample_latent=sample_latent,
            gradient_checkpointing=gradient_checkpointing,
            resize_features=resize_features,
        )
        self.channels = [info.channels for info in self.extractor.features]
        self.strides = [info.stride for info in self.extractor.features]

    @property
    def provenance(self) -> dict[str, Any]:
        """Identity of the base and of the adapters merged into it."""
        return {'base': self.identity, 'merged_adapters': self.extractor.merged}

    def init_weights(self) -> None:
        """Does nothing: the weights come from the base folder, and the LoRA was drawn when it was added."""

    def forward(self, images: Tensor, context: Tensor) -> list[Tensor]:
        """(B, 3, H, W) RGB in [-1, 1] and context (B, T, C) to (B, C_i, H // stride_i, W // stride_i) per feature."""
        return self.extractor(images, context)

    def stage_points(self) -> list[StagePoint]:
        """Encoder and UNet, in the order in which they run."""
        return [StagePoint('encode', self.extractor.vae, 'encode'), StagePoint('UNet', self.extractor.unet)]

    def heavy_modules(self) -> list[nn.Module]:
        """Encoder and UNet: the modules that are compiled."""
        return [self.extractor.vae.encoder, self.extractor.unet]
