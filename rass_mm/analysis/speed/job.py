"""Job of a benchmark: a variant together with its model and random input images."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import torch
from mmengine.config import Config
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from rass_mm.analysis.speed.models import Models, count_parameters, everything, module_tensors, settings
from rass_mm.analysis.speed.stages import extractor_of, replaced
from rass_mm.analysis.speed.variants import Variant, settled
from rass_mm.config.building import named_parts
from rass_mm.devices import check_memory
from rass_mm.diffusion.stages import StagePoint
from rass_mm.errors import ConfigError, InstallationError
from rass_mm.segmentation.stages import segmentor_stages

PIXEL_BYTES = 48
"""Memory per pixel of an input in bytes, without that of the network."""


class Job:
    """Variant of a benchmark together with its model and random input images.

    Args:
        variant: the variant to run.
        models: the object that builds and caches the models.
        size: (H, W) of the images.
        batch: number of images per pass.
        seed: seed of the images.

    Raises:
        ConfigError: the model does not support the size.
        RassError: the model cannot be built.
    """

    counts = True
    """Whether operations and parameters can be counted."""

    def __init__(self, variant: Variant, models: Models, size: tuple[int, int], batch: int, seed: int = 0) -> None:
        self.variant, self.device, self.size, self.batch = variant, models.device, size, batch
        self.config, self.notes = settled(variant)
        self.model = models.fitted(variant, self.config)
        self.trained = models.trained(variant, self.config)
        own = variant.prepared or self.config.model.type != 'RASS'  # a prepared model has its own prompt
        self.prompt = None if own else models.prompt(variant, self.config, self.model)
        check_size(self.model, size)
        height, width = size
        check_memory(
            batch * height * width * PIXEL_BYTES,
            f'--size {height}x{width} with --batch {batch}',
            'Choose a smaller --size or --batch.',
        )
        self.restores = hasattr(self.model, 'generator')
        self.inputs = self._inputs(seed)

    @property
    def test_cfg(self) -> Any:
        """Test settings (`test_cfg`) of the segmentor or restorer, or None if the config has none."""
        model: Config = self.config.model
        return (model.segmentor if 'segmentor' in model else model).get('test_cfg')

    def _inputs(self, seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(256, (self.batch, 3, *self.size), generator=generator, dtype=torch.uint8)
        if hasattr(self.model, 'restorer'):
            return [image.to(self.device) for image in pixels]  # the data preprocessor runs after restoration
        images = pixels.to(self.device).float().div(127.5).sub(1)
        return images

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context manager. Inside the block, the model has the test settings of the variant."""
        with ExitStack() as stack:
            stack.enter_context(named_parts(self.config, 'model'))
            changes = settings(self.model, self.config.model)
            changes += [(self.model.backbone, 'prompt', self.prompt)] if self.prompt is not None else []
            for owner, name, value in changes:
                stack.enter_context(replaced(owner, name, lambda _old, value=value: value))
            stack.enter_context(torch.no_grad())
            yield

    def points(self) -> list[StagePoint]:
        """Returns the timed methods of the model and their stages. Call it inside `active`."""
        return segmentor_stages(self.model)

    def run(self) -> None:
        """Segments or restores the images once. Call it inside `active`.

        Raises:
            InstallationError: `torch.compile` failed.
        """
        samples = None if self.restores else [self._sample() for _ in range(self.batch)]
        if not self.variant.compile:
            self.model.predict(self.inputs, samples)
            return
        torch.compiler.cudagraph_mark_step_begin()
        try:
            self.model.predict(self.inputs, samples)
        except Exception as error:
            if not type(error).__module__.startswith(('torch._dynamo', 'torch._inductor')):
                raise
            reason = str(error).strip().partition('\n')[0]
            raise InstallationError(
                f'{self.variant.name}: torch.compile failed ({reason}). It needs a C++ compiler (g++) on a CPU and '
                f'triton on CUDA. Install what is missing, or omit --compile.'
            ) from error

    def _sample(self) -> SegDataSample:
        return SegDataSample(metainfo=dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), self.size))

    @cached_property
    def weights_bytes(self) -> int:
        """Size of all parameters and buffers in bytes. Shared tensors are counted once."""
        tensors = {id(tensor): tensor for tensor in self._tensors()}.values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _tensors(self) -> Iterator[Tensor]:
        for module in everything(self.model):
            yield from module_tensors(module)

    def parameters(self) -> list[nn.Parameter]:
        """Returns all parameters of the model, including those of its restorer."""
        return [parameter for module in everything(self.model) for parameter in module.parameters()]

    def parameter_counts(self, read: set[int]) -> dict[str, int]:
        """Counts the elements of parameters.

        Args:
            read: ids of the parameters that a pass reads.

        Returns:
            A dict with the counts of `all`, `running` (read in a pass) and `trained` parameters (of the model before
            it is prepared).
        """
        parameters = self.parameters()
        return {
            'all': count_parameters(parameters),
            'running': count_parameters(parameter for parameter in parameters if id(parameter) in read),
            'trained': self.trained,
        }


def check_size(model: nn.Module, size: tuple[int, int]) -> None:
    """Raises a ConfigError if a segmentor does not support the image size. A benchmark does not pad its images."""
    if hasattr(model, 'generator') or hasattr(model, 'restorer'):
        return  # restorers support any size
    divisor = (getattr(model.data_preprocessor, 'test_cfg', None) or {}).get('size_divisor') or 1
    extractor = extractor_of(model)
    multiple = max(divisor, extractor.base.size_multiple) if extractor is not None else divisor
    if size[0] % multiple or size[1] % multiple:
        fitting = 'x'.join(str(-(-side // multiple) * multiple) for side in size)
        raise ConfigError(
            f'--size {size[0]}x{size[1]}: both sides must be multiples of {multiple} for this model, e.g. {fitting}.'
        )
