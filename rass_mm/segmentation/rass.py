"""The RASS segmentor: prompts, diffusion backbone, projection neck and any mmseg decode head."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce_dict, get_world_size
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from rass_mm.datasets.names import class_names
from rass_mm.diffusion.extractor import resized
from rass_mm.diffusion.prompts import Prompt
from rass_mm.diffusion.stages import StagePoint
from rass_mm.diffusion.tiling import Window, batched, mean_weights, ramp_weights, window_weights, windows
from rass_mm.engine.trained_state import TrainedStateMixin
from rass_mm.errors import ConfigError
from rass_mm.segmentation.rows import Labels, head_rows, in_bands
from rass_mm.segmentation.stages import parts_of

BLENDS = {'mean': mean_weights, 'ramp': ramp_weights}


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
        test_cfg: see `logit_bands`; `window_batch` is how many windows of one image run together (default 4),
            `keep_logits` see `predict`.
        kwargs: everything else of `EncoderDecoder`.

    Raises:
        ConfigError: the class list does not fit the head, the head cannot do one class, or the prompt is unknown.
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
        if self.out_channels == 1 and not hasattr(self.decode_head, 'threshold'):
            raise ConfigError(
                f'{type(self.decode_head).__name__} cannot tell one class from none: it has no threshold. Give it two '
                f'classes (background and yours), or use a head of single logits such as UPerHead.'
            )
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

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Segments (B, 3, H, W) RGB in [-1, 1]; the prompt is made of the whole images, windows share it.

        Samples get `pred_sem_seg`, (1, H, W) class ids at the image's original size. Class logits exist for some rows
        at a time only; `test_cfg.keep_logits=True` keeps them all as `seg_logits`, for test-time augmentation.
        """
        metas = [sample.metainfo for sample in data_samples] if data_samples else [{}] * len(inputs)
        bands = self.logit_bands(inputs, metas, self.prompt(inputs, data_samples))
        if self.test_cfg.get('keep_logits'):
            return self.postprocess_result(torch.cat(list(bands), 2), data_samples)
        threshold = None if self.out_channels > 1 else self.decode_head.threshold
        labels = [Labels(tuple(inputs.shape[2:]), meta, self.align_corners, threshold) for meta in metas]
        for band in bands:
            for image, logits in zip(labels, band, strict=True):
                image.add(logits)
        samples = data_samples if data_samples is not None else [SegDataSample() for _ in inputs]
        for sample, image in zip(samples, labels, strict=True):
            sample.pred_sem_seg = PixelData(data=image.finished())
        return samples

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Any:
        """Raw output of the head, mmseg's 'tensor' mode."""
        return self.decode_head.forward(self.extract_feat(inputs, self.prompt(inputs, data_samples)))

    def inference(self, inputs: Tensor, batch_img_metas: list[dict], prompt: Prompt | None = None) -> Tensor:
        """Class logits (B, K, H, W) of whole images, all at once; see `logit_bands`."""
        return torch.cat(list(self.logit_bands(inputs, batch_img_metas, prompt)), 2)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict], prompt: Prompt | None = None) -> Tensor:
        """Logits (B, K, h, w) of one batch of windows or whole images (B, 3, h, w)."""
        metas = sized(batch_img_metas, inputs)
        return self.decode_head.predict(self.extract_feat(inputs, prompt), metas, self.test_cfg)

    def logit_bands(
        self, inputs: Tensor, batch_img_metas: list[dict], prompt: Prompt | None = None
    ) -> Iterator[Tensor]:
        """Class logits (B, K, h, W) of whole images in consecutive bands of rows, by `test_cfg.mode`.

        'whole': one pass. 'slide': windows of `crop_size` at `stride`; their logits are averaged where they overlap, or
        with `blend='ramp'` faded into each other. 'stitched': square windows of the short side; the neck's features are
        stitched, averaged where they overlap, and decoded in one pass (the released scheme).

        Raises:
            ConfigError: any other mode.
        """
        prompt = prompt or self.prompt(inputs)
        mode = self.test_cfg.get('mode', 'whole')
        if mode == 'slide':
            if not {'crop_size', 'stride'} <= set(self.test_cfg):
                raise ConfigError("test_cfg.mode='slide' needs crop_size and stride, (height, width) in pixels each.")
            return self._slide(inputs, batch_img_metas, prompt)
        if mode not in ('whole', 'stitched'):
            raise ConfigError(f"test_cfg.mode is {mode!r}; 'whole' or 'slide' or 'stitched' is needed.")
        features = self.extract_feat(inputs, prompt) if mode == 'whole' else self.stitched_features(inputs, prompt)
        rows = head_rows(
            self.decode_head, features, sized(batch_img_metas, inputs), tuple(inputs.shape[2:]), self.test_cfg
        )
        return in_bands(rows, inputs.shape[2])

    def _slide(self, inputs: Tensor, metas: list[dict], prompt: Prompt) -> Iterator[Tensor]:
        """Rows are given out as soon as no window to come touches them; besides them one batch of windows is held."""
        config, size = self.test_cfg, tuple(inputs.shape[2:])
        grid = windows(size, config.crop_size, config.stride)
        blend = BLENDS.get(config.get('blend', 'mean'))
        if blend is None:
            raise ConfigError(f'test_cfg.blend is {config.blend!r}; one of {", ".join(BLENDS)} is needed.')
        start, sums, weight_of = 0, None, None
        for chunk, done in chunked(grid, config.get('window_batch', 4), size[0]):
            parts = self.encode_decode(
                cut(inputs, chunk), [meta for meta in metas for _ in chunk], prompt.repeated(len(chunk))
            ).unflatten(0, (len(inputs), len(chunk)))
            if sums is None:
                sums = parts.new_zeros((len(inputs), parts.shape[2], 0, size[1]))
                weight_of = window_weights(grid, blend, parts)
            missing = max(bottom for _, bottom, *_ in chunk) - start - sums.shape[2]
            sums = F.pad(sums, (0, 0, 0, max(missing, 0)))
            for index, window in enumerate(chunk):
                top, bottom, left, right = window
                sums[..., top - start : bottom - start, left:right] += parts[:, index] * weight_of(window)
            if done > start:
                yield sums[..., : done - start, :]
                start, sums = done, sums[..., done - start :, :].clone()

    def stitched_features(self, inputs: Tensor, prompt: Prompt) -> tuple[Tensor, ...]:
        """The maps the head reads of whole images (B, 3, H, W), from square windows of the short side.

        Source: the authors' released code (its behaviour). Edges of a window fall on a map's grid by rounding down, so
        that a window's place can be one cell larger than its own map, which is then resized to it.
        """
        size = tuple(inputs.shape[2:])
        side = min(size)
        grid = windows(size, (side, side), (side, side))
        strides = self.neck.strides if self.with_neck else self.backbone.strides
        sums: list[Tensor] = []
        for chunk in batched(grid, self.test_cfg.get('window_batch', 4)):
            levels = self.extract_feat(cut(inputs, chunk), prompt.repeated(len(chunk)))
            if not sums:
                sums = [
                    level.new_zeros(len(inputs), level.shape[1], *(length // stride for length in size))
                    for level, stride in zip(levels, strides, strict=True)
                ]
            for total, level, stride in zip(sums, levels, strides, strict=True):
                parts = level.unflatten(0, (len(inputs), len(chunk)))
                for index, window in enumerate(chunk):
                    top, bottom, left, right = scaled(window, stride)
                    total[..., top:bottom, left:right] += resized(parts[:, index], (bottom - top, right - left))
        return tuple(total / counts(grid, stride, total) for total, stride in zip(sums, strides, strict=True))

    def stage_points(self) -> list[StagePoint]:
        """Prompt, encoder, UNet, neck and head, in the order in which they run."""
        return [StagePoint('prompt', self.prompt), *parts_of(self)]


def scaled(window: Window, stride: int) -> Window:
    """A window of the image on a map of that stride."""
    return tuple(edge // stride for edge in window)


def counts(grid: Sequence[Window], stride: int, like: Tensor) -> Tensor:
    """(H // stride, W // stride) how many windows of a grid hold each cell of a map, in the dtype of `like`."""
    count = like.new_zeros(like.shape[-2:])
    for top, bottom, left, right in (scaled(window, stride) for window in grid):
        count[top:bottom, left:right] += 1
    return count


def sized(metas: list[dict], inputs: Tensor) -> list[dict]:
    """Meta information with the size of these inputs, by which heads size their output.

    Inside a window the whole image's sizes would be wrong. mmseg's heads look at `pad_shape` unless `img_shape` is a
    torch.Size.
    """
    return [{**meta, 'img_shape': inputs.shape[2:], 'pad_shape': inputs.shape[2:]} for meta in metas]


def cut(inputs: Tensor, chunk: Sequence[Window]) -> Tensor:
    """Windows of (B, C, H, W) as one batch; one image's windows stand together, as its repeated prompt does."""
    crops = [inputs[..., top:bottom, left:right] for top, bottom, left, right in chunk]
    return torch.stack(crops, 1).flatten(0, 1)


def chunked(grid: Sequence[Window], size: int, height: int) -> Iterator[tuple[list[Window], int]]:
    """Windows in batches, each with the number of image rows that are finished after it."""
    seen = 0
    for chunk in batched(grid, size):
        seen += len(chunk)
        yield chunk, grid[seen][0] if seen < len(grid) else height


def build_prompt(config: dict[str, Any], base: Any, names: list[str]) -> Any:
    """Builds a prompt module from its config; a `tagger` inside is built too, with the class names."""
    config = {**config, 'base': base, 'classes': names}
    if isinstance(config.get('tagger'), dict):
        config['tagger'] = MODELS.build({'classes': names, **config['tagger']})
    return MODELS.build(config)
