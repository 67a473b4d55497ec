"""Data preprocessor of mmseg with a separate padding value at test time."""

from collections.abc import Mapping
from typing import Any

from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS
from torch import Tensor

from rass_mm.errors import ConfigError

MIDDLE = 127.5
"""Mean and standard deviation that map the grey levels 0..255 to [-1, 1]."""


def check_value_range(preprocessor: Any) -> None:
    """Raises a ConfigError if a data preprocessor does not map images to [-1, 1], as the base requires."""
    for key in ('mean', 'std') if isinstance(preprocessor, Mapping) else ():
        values = preprocessor.get(key)
        values = values if isinstance(values, list | tuple) else [values]
        if any(value != MIDDLE for value in values):
            raise ConfigError(
                f'data_preprocessor.{key} (model.data_preprocessor.{key}) is {list(values)}, but a diffusion backbone '
                f'needs images in [-1, 1]. Set {key}=[{MIDDLE}, {MIDDLE}, {MIDDLE}].'
            )


@MODELS.register_module()
class RawPadPreProcessor(SegDataPreProcessor):
    """`SegDataPreProcessor` that pads test images with a raw grey level instead of mmseg's normalised `pad_val`.

    The released segmentor pads with zeros before normalising, so its padding is black (-1 for the network). By
    default, the padding of mmseg is mid-grey. In training, this preprocessor pads like mmseg.

    Args:
        raw_pad_val: grey level in 0..255 of the pixels that are added on the right and at the bottom at test time.
        kwargs: further arguments of `SegDataPreProcessor`; `mean` and `std` are required.
    """

    def __init__(self, raw_pad_val: float = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.raw_pad_val = raw_pad_val

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalises images (3, h, w) in 0..255 and pads them to one batch (B, 3, H, W).

        Args:
            data: dict with `inputs`, a list or a batch of images, and `data_samples`.
            training: whether the batch is for training.
        """
        height, width = data['inputs'][0].shape[-2:]
        result = super().forward(data, training)
        if not training:
            inputs: Tensor = result['inputs']
            filling = ((self.raw_pad_val - self.mean) / self.std)[None]
            inputs[..., height:, :] = filling
            inputs[..., :height, width:] = filling
        return result
