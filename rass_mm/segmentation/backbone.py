"""mmseg backbone that extracts features with a frozen VAE encoder and a diffusion UNet."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule, initialize
from mmseg.registry import MODELS
from torch import Tensor, nn

from rass_mm.config.arguments import Timestep
from rass_mm.config.kinds import type_name
from rass_mm.datasets.names import class_names
from rass_mm.diffusion.adapters import AdapterSettings, AdapterSpec
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.extractor import DiffusionExtractor
from rass_mm.diffusion.features import RASS_FEATURES
from rass_mm.diffusion.stages import StagePoint
from rass_mm.engine.trained_state import TrainedStateMixin
from rass_mm.errors import ConfigError
from rass_mm.segmentation.prompts import build_prompt


@MODELS.register_module()
class DiffusionBackbone(TrainedStateMixin, BaseModule):
    """Frozen VAE encoder and LoRA-adapted diffusion UNet as a backbone for any mmseg segmentor.

    In an `EncoderDecoder`, which passes no context, the backbone uses its own `prompt`. The attributes `channels` and
    `strides` list the channels and the stride of each output feature; set `in_channels` and `in_index` of the decode
    head to match them. The state dict contains only trained tensors and provenance; see `TrainedStateMixin`.

    Args:
        base: Stable Diffusion folder in diffusers layout, or several such folders in order of preference.
        expect: requirements on the base, see `read_base`.
        scr_adapter: adapter file of a trained restorer, which is merged into the UNet before the new LoRA is added.
            None merges nothing.
        adapter: dict with `rank` and `alpha` of the new LoRA; None uses the defaults of `AdapterSpec`.
        features: names of the output features, see `rass_mm.diffusion.features`.
        train_parameters: parameters to train: 'adapter' (the LoRA and `conv_in`), 'unet' (the whole UNet) or 'nothing'.
        timestep: the timestep passed to the UNet, in [0, 1000).
        sample_latent: whether to draw the latent from the VAE's posterior instead of using its mode.
        gradient_checkpointing: whether to recompute the UNet's activations in the backward pass to save memory.
        resize_features: whether to accept image sides that are multiples of the VAE's stride (8 in Stable Diffusion)
            but not of the base's `size_multiple` (64), see `DiffusionExtractor`.
        classes: class names, or the name of a registered data set whose METAINFO lists them; None for no classes.
        prompt: config of the prompt that is used when `forward` gets no context. None means `ClassTokens` of `classes`,
            or `EmptyPrompt` if there are no classes.
        init_cfg: `dict(type='Pretrained', checkpoint=FILE, prefix='backbone')` starts from the backbone of a model that
            was trained on the same base; None starts from the base alone.

    Raises:
        BaseFolderError, AdapterError, ConfigError: the base, the adapter file or an argument cannot be used.
    """

    def __init__(
        self,
        base: str | Sequence[str],
        expect: dict[str, Any] | None = None,
        scr_adapter: str | None = None,
        adapter: AdapterSettings | None = None,
        features: Sequence[str] = RASS_FEATURES,
        train_parameters: str = 'adapter',
        timestep: Timestep = 1,
        sample_latent: bool = False,
        gradient_checkpointing: bool = False,
        resize_features: bool = False,
        classes: str | Sequence[str] | None = None,
        prompt: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if init_cfg is not None and type_name(init_cfg) != 'Pretrained':
            raise ConfigError(f"backbone.init_cfg.type is {init_cfg.get('type')!r}. Only 'Pretrained' is supported.")
        spec = AdapterSpec(**(adapter or {}))
        if not features:
            raise ConfigError(
                'features (model.backbone.features) is empty. Name at least one feature, or remove the key to use '
                f'the default: {", ".join(RASS_FEATURES)}.'
            )
        if not isinstance(spec.rank, int) or spec.rank < 1:
            raise ConfigError(
                f'adapter.rank (model.backbone.adapter.rank) is {spec.rank!r}, but it must be a positive integer, e.g. '
                f"{AdapterSpec.rank}. To train without an adapter, set train_parameters='unet' or 'nothing'."
            )
        self.base = read_base(base, expect)
        self.identity = self.base.identity  # now: under the meta device there are no weights to identify
        self.extractor = DiffusionExtractor(
            self.base,
            features=features,
            merged_adapter=scr_adapter,
            adapter=spec,
            train=train_parameters,
            timestep=timestep,
            sample_latent=sample_latent,
            gradient_checkpointing=gradient_checkpointing,
            resize_features=resize_features,
        )
        self.channels = [info.channels for info in self.extractor.features]
        self.strides = [info.stride for info in self.extractor.features]
        self.classes = class_names(classes or [])
        default = {'type': 'ClassTokens' if self.classes else 'EmptyPrompt'}
        self.prompt = build_prompt(prompt or default, self.base, self.classes)

    @property
    def provenance(self) -> dict[str, Any]:
        """The base, the merged adapters and the class names that a checkpoint of this model depends on."""
        return {'base': self.identity, 'merged_adapters': self.extractor.merged, 'classes': self.classes}

    def init_weights(self) -> None:
        """Loads the checkpoint of `init_cfg`, if there is one. The constructor initializes all other weights."""
        if self.init_cfg and not self.is_init:
            initialize(self, self.init_cfg)
        self.is_init = True

    def forward(self, images: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """Computes the features.

        Args:
            images: (B, 3, H, W) RGB in [-1, 1].
            context: (B, T, C) tokens for the cross-attention; None uses those of `prompt`.

        Returns:
            One (B, C_i, H // stride_i, W // stride_i) tensor per feature.

        Raises:
            DataError: H or W is not a multiple of the number that the base requires, see `resize_features`.
        """
        return self.extractor(images, self.prompt(images).conditioning if context is None else context)

    def prepare_prediction(self, dtype: torch.dtype) -> None:
        """Prepares the backbone for prediction in `dtype`, in place, see `rass_mm.engine.ready.prepare`."""
        self.extractor.prepare_prediction(dtype, self.prompt)

    def stage_points(self) -> list[StagePoint]:
        """Returns the prompt, the VAE encoder and the UNet as stages, in the order in which they run."""
        encode = StagePoint('encode', self.extractor.vae, 'encode')
        return [StagePoint('prompt', self.prompt), encode, StagePoint('UNet', self.extractor.unet)]

    def heavy_modules(self) -> list[nn.Module]:
        """Returns the VAE encoder and the UNet, which are the modules to compile."""
        return [self.extractor.vae.encoder, self.extractor.unet]
