"""Identity model for scoring enlarged inputs and images that were restored by other systems."""

from typing import Any

from mmagic.registry import MODELS
from mmagic.structures import DataSample
from mmengine.model import BaseModel
from torch import Tensor


@MODELS.register_module()
class AsTheyAre(BaseModel):
    """Model that returns its input. It has no parameters, so it is tested without a checkpoint.

    Args:
        data_preprocessor: mmagic's data preprocessor, which must not change the images: mean 0, std 1, BGR.
    """

    def __init__(self, data_preprocessor: dict[str, Any] | None = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor)

    def forward(self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor') -> Any:
        """Returns the images unchanged.

        Args:
            inputs: (B, 3, H, W) BGR in 0..255.
            data_samples: one per image, or None.
            mode: 'predict' returns samples with `output.pred_img` and `input` (3, H, W). Other modes return the images.
        """
        if mode != 'predict':
            return inputs
        samples = data_samples if data_samples is not None else [DataSample() for _ in inputs]
        for image, sample in zip(inputs, samples, strict=True):
            sample.output = DataSample(pred_img=image.cpu())
            sample.set_field(image.cpu(), 'input')
        return samples
