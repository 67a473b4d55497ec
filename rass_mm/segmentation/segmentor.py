"""The RASS segmentor: prompts, diffusion backbone, projection neck and any mmseg decode head."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce_dict, get_world_size
from mmengine.model import BaseModel
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from torch import Tensor

from rass_mm.checkpoint.trained_state import TrainedStateMixin
from rass_mm.datasets.names import class_names
from rass_mm.diffusion.prompts import Prompt
from rass_mm.diffusion.tiling import batched, windows
from rass_mm.errors import ConfigError


@MODELS.register_module()
class RASS(TrainedStateMixin, EncoderDecoder):
    """Restoration-adapted semantic segmentation (arXiv 2602.14042): an `EncoderDecoder` whose backbone reads a prompt.

    The state dict holds trained tensors and provenance only; see `TrainedStateMixin`.

    Args:
        backbone: config of a `DiffusionBackbone`.
        decode_head: config of any mmseg decode head; reads the neck's maps, finest first.
        classes: class names, or the name of a registered data set whose METAINFO has them.
        prompt: config of the prompt: `ClassTokens` (default), `EmptyPrompt` or `TagPrompt`.
        neck: config of the neck; `in_channels` and `in_strides` are filled in from the backbone.
        test_cfg: mmseg's, plus `window_batch`: how many windows of one image run together in `slide` mode (default 4).
        kwargs: everything else of `EncoderDecoder`.

    Raises:
        ConfigError: the class list does not fit the head, or the prompt is unknown.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        decode_head: dict[str, Any],
        classes: str | Sequence[str],
        prompt: dict[str, Any] | None = None,
        neck: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        names = class_names(classes)
        if len(names) != decode_head.get('num_classes'):
            raise ConfigError(
                f'decode_head.num_classes is {decode_head.get("num_classes")}, but the class list {classes!r} has '
                f"{len(names)} names. Set decode_head.num_classes={len(names)}, or give the data set's class list."
            )
        super().__init__(backbone=backbone, decode_head=decode_head, **kwargs)
        self.classes = names
        if neck is not None:
            sizes = {'in_channels': self.backbone.channels, 'in_strides': self.backbone.strides}
            self.neck = MODELS.build({**neck, **sizes})
        self.prompt = build_prompt(prompt or {'type': 'ClassTokens'}, self.backbone.base, names)

    @property
    def provenance(self) -> dict[str, Any]:
        """What a checkpoint of this model depends on: the base, merged adapters and class names."""
        return {**self.backbone.provenance, 'classes': self.classes}

    def extract_feat(self, inputs: Tensor, prompt: Prompt | None = None) -> tuple[Tensor, ...]:
        """(B, 3, H, W) RGB in [-1, 1] to the maps the decode head reads; the prompt is made here if not given."""
        prompt = prompt or self.prompt(inputs)
        features = self.backbone(inputs, prompt.context)
        return self.neck(features) if self.with_neck else tuple(features)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the decode head (and auxiliary heads) for (B, 3, H, W) RGB in [-1, 1]."""
        features = self.extract_feat(inputs, self.prompt(inputs, data_samples))
        losses = self._decode_head_forward_train(features, data_samples)
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(features, data_samples))
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """mmengine's, with the logged values averaged over all processes, so that the log shows the global batch."""
        loss, log_vars = BaseModel.parse_losses(self, losses)
        if get_world_size() > 1:
            log_vars = type(log_vars)((key, value.detach().clone()) for key, value in log_vars.items())
            all_reduce_dict(log_vars, op='mean')
        return loss, log_vars

    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Segments (B, 3, H, W) RGB in [-1, 1]; the prompt is made of the whole images, windows share it."""
        metas = [sample.metainfo for sample in data_samples] if data_samples else [{}] * len(inputs)
        logits = self.inference(inputs, metas, self.prompt(inputs, data_samples))
        return self.postprocess_result(logits, data_samples)

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Any:
        """Raw output of the head, mmseg's 'tensor' mode."""
        return self.decode_head.forward(self.extract_feat(inputs, self.prompt(inputs, data_samples)))

    def inference(self, inputs: Tensor, batch_img_metas: list[dict], prompt: Prompt | None = None) -> Tensor:
        """Class logits (B, K, H, W) of whole images, by `test_cfg.mode`: 'whole' or 'slide'.

        Raises:
            ConfigError: any other mode.
        """
        prompt = prompt or self.prompt(inputs)
        mode = self.test_cfg.get('mode', 'whole')
        if mode == 'whole':
            return self.encode_decode(inputs, batch_img_metas, prompt)
        if mode == 'slide':
            return self.slide_inference(inputs, batch_img_metas, prompt)
        raise ConfigError(f"test_cfg.mode is {mode!r}; 'whole' or 'slide' is needed.")

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict], prompt: Prompt | None = None) -> Tensor:
        """Logits (B, K, h, w) of one batch of windows or whole images (B, 3, h, w)."""
        # Heads size their output by these; inside a window the whole image's sizes would be wrong. mmseg's heads
        # look at pad_shape unless img_shape is a torch.Size.
        metas = [{**meta, 'img_shape': inputs.shape[2:], 'pad_shape': inputs.shape[2:]} for meta in batch_img_metas]
        return self.decode_head.predict(self.extract_feat(inputs, prompt), metas, self.test_cfg)

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict], prompt: Prompt | None = None) -> Tensor:
        """Logits (B, K, H, W): mean over overlapping windows of `crop_size` and `stride`, `window_batch` at a time."""
        prompt = prompt or self.prompt(inputs)
        size = tuple(inputs.shape[2:])
        logits = inputs.new_zeros((len(inputs), self.out_channels, *size))
        count = inputs.new_zeros((1, 1, *size))
        for chunk in batched(
            windows(size, self.test_cfg.crop_size, self.test_cfg.stride), self.test_cfg.get('window_batch', 4)
        ):
            # Image-major order, so that one image's windows stand together as its repeated prompt does.
            crops = torch.stack([inputs[..., top:bottom, left:right] for top, bottom, left, right in chunk], 1).flatten(
                0, 1
            )
            metas = [meta for meta in batch_img_metas for _ in chunk]
            parts = self.encode_decode(crops, metas, prompt.repeated(len(chunk))).unflatten(
                0, (len(inputs), len(chunk))
            )
            for index, (top, bottom, left, right) in enumerate(chunk):
                logits[..., top:bottom, left:right] += parts[:, index]
                count[..., top:bottom, left:right] += 1
        return logits / count


def build_prompt(config: dict[str, Any], base: Any, names: list[str]) -> Any:
    """Builds a prompt module from its config; a `tagger` inside is built too, with the class names."""
    config = {**config, 'base': base, 'classes': names}
    if isinstance(config.get('tagger'), dict):
        config['tagger'] = MODELS.build({'classes': names, **config['tagger']})
    return MODELS.build(config)
