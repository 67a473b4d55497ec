"""The RASS segmentor: a diffusion backbone with its prompt, a projection neck and any mmseg decode head."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce_dict, get_world_size
from mmengine.model import BaseModel
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from rass_mm.datasets.names import class_names
from rass_mm.diffusion.extractor import resized
from rass_mm.diffusion.prompts import Prompt
from rass_mm.diffusion.tiling import Window, batched, windows
from rass_mm.engine.ready import prepare_part
from rass_mm.engine.trained_state import TrainedStateMixin
from rass_mm.errors import ConfigError
from rass_mm.labelling.bands import Labels, in_bands
from rass_mm.labelling.sliding import cut, slide
from rass_mm.segmentation.clean_crops import twin_settings
from rass_mm.segmentation.logits import check_kept_size, each_size, keeping_logits, keeps_logits
from rass_mm.segmentation.preprocessing import check_value_range
from rass_mm.segmentation.rows import head_rows
from rass_mm.segmentation.update_factors import update_factors, weighted


@MODELS.register_module()
class RASS(TrainedStateMixin, EncoderDecoder):
    """Restoration-adapted semantic segmentation (arXiv 2602.14042): an `EncoderDecoder` whose backbone takes a prompt.

    The state dict contains only trained tensors and provenance; see `TrainedStateMixin`.

    Args:
        backbone: config of a `DiffusionBackbone`; its `classes` and `prompt` are set from the arguments below.
        decode_head: config of any mmseg decode head; its inputs are the maps of the neck, finest first.
        classes: class names, or the name of a registered data set whose METAINFO lists them.
        prompt: config of the prompt: `ClassTokens` (default), `EmptyPrompt` or `TagPrompt`.
        neck: config of the neck; `in_channels` and `in_strides` are filled in from the backbone.
        test_cfg: `mode` and its settings, see `logit_bands`; `window_batch`, the number of windows per image in a batch
            (default 4); and `keep_logits`, see `test_step`.
        train_cfg: `clean_twins=dict(kl_weight=...)` trains on the clean and the degraded version of each crop, see
            `rass_mm.segmentation.clean_twins`; None or `{}` on the degraded one only.
        kwargs: further arguments of `EncoderDecoder`.

    Raises:
        ConfigError: the class list does not match the head, the images are not normalised to [-1, 1], the head does
            not support a single class, or the prompt is unknown.
    """

    _kept_logits = False
    _labels_only = False
    _factors: Iterator[dict[str, float]] = iter(())

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
                f'{len(names)} names. Set decode_head.num_classes={len(names)}, or correct the class list.'
            )
        check_value_range(kwargs.get('data_preprocessor'))
        backbone = {**backbone, 'classes': names, 'prompt': prompt or {'type': 'ClassTokens'}}
        super().__init__(backbone=backbone, decode_head=decode_head, **kwargs)
        if self.out_channels == 1 and not hasattr(self.decode_head, 'threshold'):
            raise ConfigError(
                f'{type(self.decode_head).__name__} cannot predict a single class, because it has no threshold. '
                f'Use two classes (background and yours), or a head with a threshold such as UPerHead.'
            )
        self.classes = names
        if neck is not None:
            sizes = {'in_channels': self.backbone.channels, 'in_strides': self.backbone.strides}
            self.neck = MODELS.build({**neck, **sizes})

    @property
    def prompt(self) -> nn.Module:
        """Prompt module of the backbone."""
        return self.backbone.prompt

    @property
    def provenance(self) -> dict[str, Any]:
        """The base, merged adapters and class names that a checkpoint of this model depends on."""
        return self.backbone.provenance

    def extract_feat(self, inputs: Tensor, prompt: Prompt | None = None) -> tuple[Tensor, ...]:
        """Computes the inputs of the decode head from (B, 3, H, W) RGB images in [-1, 1].

        If `prompt` is None, it is computed from the images.
        """
        prompt = prompt or self.prompt(inputs)
        features = self.backbone(inputs, prompt.conditioning)
        return self.neck(features) if self.with_neck else tuple(features)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Computes the losses of the decode head and the auxiliary heads for (B, 3, H, W) RGB images in [-1, 1]."""
        features = self.extract_feat(inputs, self.prompt(inputs, data_samples))
        losses = self._decode_head_forward_train(features, data_samples)
        if self.with_auxiliary_head:
            losses.update(self._auxiliary_head_forward_train(features, data_samples))
        factors = next(self._factors, None)
        return weighted(losses, factors) if factors else losses

    def begin_update(self, batches: Sequence[Mapping[str, Any]]) -> None:
        """Prepares the losses of the next calls of `loss` for the batches of one update, see `update_factors`."""
        heads = {'decode': self.decode_head, **({'aux': self.auxiliary_head} if self.with_auxiliary_head else {})}
        lists = {prefix: head for prefix, head in heads.items() if isinstance(head, nn.ModuleList)}
        for prefix, parts in lists.items():
            del heads[prefix]
            heads |= {f'{prefix}_{number}': head for number, head in enumerate(parts)}
        if twin_settings(self.train_cfg) is not None:  # the clean twins have the same labels
            batches = [{'data_samples': 2 * list(batch['data_samples'])} for batch in batches]
        self._factors = iter(update_factors(heads, batches))

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sums the losses as mmengine does, and averages the logged values over all processes."""
        loss, log_vars = BaseModel.parse_losses(self, losses)
        if get_world_size() > 1:
            log_vars = type(log_vars)((key, value.detach().clone()) for key, value in log_vars.items())
            all_reduce_dict(log_vars, op='mean')
        return loss, log_vars

    def test_step(self, data: dict[str, Any]) -> list[SegDataSample]:
        """Segments a batch from a data loader, or from mmseg's `inference_model` or `MMSegInferencer`.

        As with mmseg's own segmentors, the returned samples have `seg_logits`. By default, the validation and test
        loops drop them, and elsewhere their size is limited (see `logits.check_kept_size`). With
        `test_cfg.keep_logits=True`, they are always kept, and with False never. Images of different sizes are segmented
        one by one.
        """
        with keeping_logits(self):
            return each_size(super().test_step, data)

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list | None = None) -> list:
        """Segments (B, 3, H, W) RGB images in [-1, 1].

        Adds `pred_sem_seg` to each sample: (1, H, W) class ids at the original size of the image. The prompt is
        computed from whole images and shared by their windows. Logits are computed for a few rows at a time and
        dropped, unless they are kept as `seg_logits`, see `test_step`.
        """
        metas = [sample.metainfo for sample in data_samples] if data_samples else [{}] * len(inputs)
        keep = keeps_logits(self)
        if keep and self.test_cfg.get('keep_logits') is None:
            check_kept_size(self.out_channels, [meta.get('ori_shape', inputs.shape[2:]) for meta in metas])
        bands = self.logit_bands(inputs, metas, self.prompt(inputs, data_samples))
        if keep:
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

    def prepare_prediction(self, dtype: torch.dtype) -> list[nn.Module]:
        """Prepares the model for prediction in `dtype`, in place, see `rass_mm.engine.ready.prepare`.

        The auxiliary heads are dropped. A head without `prepare_prediction` keeps float32 weights and uses autocast.

        Returns:
            The modules whose weights can be packed.
        """
        self.backbone.prepare_prediction(dtype)
        if self.with_neck:
            self.neck.to(dtype)
        self.auxiliary_head = None
        heads = self.decode_head if isinstance(self.decode_head, nn.ModuleList) else [self.decode_head]
        prepared = [part for head in heads for part in prepare_part(head, dtype)]
        return [self.backbone, *([self.neck] if self.with_neck else []), *prepared]

    def heavy_modules(self) -> list[nn.Module]:
        """Returns the most expensive modules, which are those of the backbone."""
        return self.backbone.heavy_modules()

    def _forward(self, inputs: Tensor, data_samples: list | None = None) -> Any:
        """Computes the raw output of the decode head (mmseg's mode 'tensor')."""
        return self.decode_head.forward(self.extract_feat(inputs, self.prompt(inputs, data_samples)))

    def inference(self, inputs: Tensor, batch_img_metas: list[dict], prompt: Prompt | None = None) -> Tensor:
        """Computes all rows of the logits (B, K, H, W) of whole images, see `logit_bands`."""
        return torch.cat(list(self.logit_bands(inputs, batch_img_metas, prompt)), 2)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict], prompt: Prompt | None = None) -> Tensor:
        """Computes the logits (B, K, h, w) of a batch of windows or whole images (B, 3, h, w)."""
        metas = sized(batch_img_metas, inputs)
        return self.decode_head.predict(self.extract_feat(inputs, prompt), metas, self.test_cfg)

    def logit_bands(
        self, inputs: Tensor, batch_img_metas: list[dict], prompt: Prompt | None = None
    ) -> Iterator[Tensor]:
        """Yields the logits (B, K, h, W) of whole images in consecutive bands of rows.

        `test_cfg.mode` selects the scheme. 'whole': one forward pass. 'slide': windows of `crop_size` at `stride`,
        whose logits are averaged where they overlap, or blended with linear ramps (`blend='ramp'`). 'stitched': square
        windows with the length of the short side, whose neck features are averaged where they overlap and then decoded
        in one pass (the scheme of the released code).

        Raises:
            ConfigError: the mode is unknown, or mode 'slide' has no `crop_size` or `stride`.
        """
        prompt = prompt or self.prompt(inputs)
        mode = self.test_cfg.get('mode', 'whole')
        if mode == 'slide':
            if not {'crop_size', 'stride'} <= set(self.test_cfg):
                raise ConfigError(
                    "test_cfg.mode='slide' needs crop_size and stride. Set each to (height, width) in pixels."
                )
            return slide(
                inputs,
                self.test_cfg,
                lambda crops, count: self.encode_decode(
                    crops, [meta for meta in batch_img_metas for _ in range(count)], prompt.repeated(count)
                ),
            )
        if mode not in ('whole', 'stitched'):
            raise ConfigError(f"test_cfg.mode is {mode!r}; expected 'whole', 'slide' or 'stitched'.")
        features = self.extract_feat(inputs, prompt) if mode == 'whole' else self.stitched_features(inputs, prompt)
        rows = head_rows(
            self.decode_head, features, sized(batch_img_metas, inputs), tuple(inputs.shape[2:]), self.test_cfg
        )
        return in_bands(rows, inputs.shape[2])

    def stitched_features(self, inputs: Tensor, prompt: Prompt) -> tuple[Tensor, ...]:
        """Computes the inputs of the head for whole images (B, 3, H, W) from square windows as long as the short side.

        This is the behaviour of the authors' released code. Window edges are rounded down to the grid of each feature
        map, so the region that a window covers can be one cell larger than the features of the window. In this case,
        the features are resized to the region.
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


def scaled(window: Window, stride: int) -> Window:
    """Returns the region of a feature map with this stride that a window of the image covers."""
    return tuple(edge // stride for edge in window)


def counts(grid: Sequence[Window], stride: int, like: Tensor) -> Tensor:
    """Returns the number of windows that cover each cell of the feature map `like`, as (h, w) in its dtype."""
    count = like.new_zeros(like.shape[-2:])
    for top, bottom, left, right in (scaled(window, stride) for window in grid):
        count[top:bottom, left:right] += 1
    return count


def sized(metas: list[dict], inputs: Tensor) -> list[dict]:
    """Returns copies of the meta information with the size of `inputs`, which determines the output size of heads.

    For a window, the sizes of the whole image would be wrong. The heads of mmseg use `pad_shape` unless `img_shape` is
    a torch.Size.
    """
    return [{**meta, 'img_shape': inputs.shape[2:], 'pad_shape': inputs.shape[2:]} for meta in metas]
