"""Training on clean and degraded versions of the same crops: the setting `train_cfg.clean_twins` of a segmentor.

The pipeline keeps the crop as it is before the degradation (`KeepCleanImage`). The data preprocessor appends these
clean twins to each training batch, with the labels of their degraded images, so that all losses are computed for both.
With `kl_weight` above 0, the decode head also gets the loss `kl_weight * KL(clean || degraded)`, see `consistency`.
Without the setting, nothing is changed. For the pipelines, see `clean_crops`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor, nn

from rass_mm.config.training import TWINS, WEIGHT, train_cfg_fault
from rass_mm.errors import ConfigError
from rass_mm.segmentation.clean_crops import CLEAN, KEY, STEPS, twin_settings
from rass_mm.segmentation.consistency import kl_divergence, losses_and_probabilities, supports_kl

IS_TWIN = 'is_clean_twin'
"""Key of the meta information that marks the clean images of a batch."""


def with_clean_twins(data: Mapping[str, Any]) -> dict[str, Any]:
    """Appends the clean twin of each image to a training batch.

    Args:
        data: a batch as from the data loader: `inputs`, B images (3, H, W), and `data_samples`, each with its clean
            image (H, W, 3) as `gt`.

    Returns:
        A dict with 2 B images and samples, the clean ones last. The given batch is not changed.

    Raises:
        ConfigError: a sample has no clean image, or one of another size.
    """
    images, samples = list(data['inputs']), list(data['data_samples'])
    clean = [_clean_image(image, sample) for image, sample in zip(images, samples, strict=True)]
    return {**data, 'inputs': [*images, *clean], 'data_samples': [*samples, *map(_twin, samples)]}


def _clean_image(image: Tensor, sample: SegDataSample) -> Tensor:
    found = sample.get(CLEAN)
    if found is None:
        raise ConfigError(STEPS)
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(found), -1, 0)))
    if planes.shape != image.shape:
        raise ConfigError(
            f'The clean image of {sample.get("img_path")} has the shape {tuple(planes.shape)}, but the degraded one '
            f'has {tuple(image.shape)}. {STEPS}'
        )
    return planes.to(image.device)


def _twin(sample: SegDataSample) -> SegDataSample:
    """Returns a copy of a sample that shares its tensors, marked as clean."""
    twin = sample.clone()
    for name, value in sample.items():
        if isinstance(value, BaseDataElement):
            twin.set_field(value.clone(), name)
    twin.set_metainfo({IS_TWIN: True})
    return twin


def use_clean_twins(model: EncoderDecoder) -> None:
    """Sets up a segmentor for its `train_cfg.clean_twins`. Without this setting, the model is not changed.

    Raises:
        ConfigError: the setting is wrong, or the decode head does not support its `kl_weight`.
    """
    fault = train_cfg_fault(model.train_cfg, 'model.train_cfg')
    if fault:
        raise ConfigError(fault)
    settings = twin_settings(model.train_cfg)
    if settings is None:
        return
    if settings[WEIGHT] > 0 and not supports_kl(model.decode_head):
        raise ConfigError(
            f'{KEY}.{WEIGHT} is {settings[WEIGHT]}, but the class probabilities of {type(model.decode_head).__name__} '
            "are not known. Use Mask2Former, or a head that inherits loss and loss_by_feat from mmseg's "
            f'BaseDecodeHead, such as UPerHead. With {WEIGHT}=0, any head can be trained on both images.'
        )
    model.data_preprocessor.register_forward_pre_hook(_append_twins, with_kwargs=True)


def _append_twins(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
    """Forward pre-hook of a data preprocessor. It appends the clean twins to batches for training."""
    given = dict(zip(('data', 'training'), args, strict=False)) | kwargs
    return ((), {**given, 'data': with_clean_twins(given['data'])}) if given.get('training') else None


def twin_losses(model: EncoderDecoder, features: Sequence[Tensor], samples: list[SegDataSample]) -> dict[str, Tensor]:
    """Computes the losses of the decode head of a segmentor, and the KL divergence as `decode.loss_kl`.

    Args:
        model: a segmentor with `train_cfg.clean_twins.kl_weight` above 0.
        features: (2 B, C, H/s, W/s) inputs of the decode head, finest first.
        samples: the 2 B samples; the last B are the clean twins of the first B.

    Raises:
        ConfigError: the batch has no clean twins.
    """
    pairs = len(samples) // 2
    if [bool(sample.get(IS_TWIN)) for sample in samples] != [False] * pairs + [True] * pairs:
        raise ConfigError(
            f'{KEY} is set, but the batch has no clean twins. Pass the batch of the data loader to train_step, or to '
            'data_preprocessor(data, training=True) before the loss.'
        )
    losses, found = losses_and_probabilities(model.decode_head, features, samples)
    losses['loss_kl'] = model.train_cfg[TWINS][WEIGHT] * kl_divergence(found[pairs:], found[:pairs])
    return add_prefix(losses, 'decode')


def adapt_segmentors() -> None:
    """Makes mmseg's `EncoderDecoder` and its subclasses, such as RASS, support `train_cfg.clean_twins`."""
    EncoderDecoder.__init__ = _set_up(EncoderDecoder.__init__)
    EncoderDecoder._decode_head_forward_train = _with_kl(EncoderDecoder._decode_head_forward_train)


def _set_up(build: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(build)
    def build_with_twins(self: BaseModel, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        use_clean_twins(self)

    return build_with_twins


def _with_kl(compute: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    @functools.wraps(compute)
    def compute_with_kl(self: EncoderDecoder, inputs: Any, data_samples: list[SegDataSample]) -> dict[str, Tensor]:
        settings = twin_settings(self.train_cfg)
        if settings is None or settings[WEIGHT] == 0:
            return compute(self, inputs, data_samples)
        return twin_losses(self, inputs, data_samples)

    return compute_with_kl
