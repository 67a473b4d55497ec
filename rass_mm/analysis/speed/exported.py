"""Job of a benchmark that runs an exported model."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from rass_mm.analysis.speed.variants import Variant
from rass_mm.diffusion.stages import StagePoint
from rass_mm.diffusion.tiling import blended
from rass_mm.errors import ConfigError
from rass_mm.export.exported_restorer import ExportedRestorer
from rass_mm.export.exported_segmentor import ExportedSegmentor
from rass_mm.export.metadata import SEGMENTOR, Exported, read_exported
from rass_mm.labelling.bands import Labels


class ExportedJob:
    """Exported model together with random input images. It has the interface of `rass_mm.analysis.speed.job.Job`.

    Args:
        variant: a variant whose `exported` is set.
        device: the device of the benchmark.
        size: (H, W) of the images.
        batch: number of images per pass.
        seed: seed of the images.

    Raises:
        ConfigError: the device is not the CPU, or the images are smaller than a window of a segmentor.
        InstallationError: the runtime is not installed.
        CheckpointError: the exported model is damaged.
    """

    device = torch.device('cpu')
    counts = False
    """Whether operations and parameters can be counted."""

    def __init__(
        self, variant: Variant, device: torch.device, size: tuple[int, int], batch: int, seed: int = 0
    ) -> None:
        if device.type != 'cpu':
            raise ConfigError(f'{variant.name}: exported models run on the CPU. Pass --device cpu.')
        self.variant, self.size, self.batch = variant, size, batch
        self.exported = read_exported(variant.config)
        self.test_cfg = {'window': list(self.exported.window), 'stride': self.exported.metadata['stride']}
        self.notes = [f'exported, {_described(self.exported)}; operations are not counted']
        self.run_image = _runner(self.exported)
        self._check_size()
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(256, (batch, 3, *size), generator=generator, dtype=torch.uint8)
        self.inputs = pixels.float().div(127.5).sub(1)

    def _check_size(self) -> None:
        height, width = self.exported.window
        if self.exported.metadata['kind'] == SEGMENTOR and (self.size[0] < height or self.size[1] < width):
            raise ConfigError(
                f'--size {self.size[0]}x{self.size[1]}: the windows of {self.variant.name} have {height}x{width} '
                'pixels. Choose images that are at least as large.'
            )

    def active(self) -> AbstractContextManager:
        """Returns a context manager inside which gradients are disabled."""
        return torch.no_grad()

    def points(self) -> list[StagePoint]:
        """Returns the only stage, the network with its runtime."""
        return [StagePoint('network', self, 'run_image')]

    def run(self) -> None:
        """Segments or restores the images once."""
        for image in self.inputs:
            self.run_image(image)

    @property
    def weights_bytes(self) -> int:
        """Size of the files of the network in bytes."""
        return sum(file['bytes'] for file in self.exported.metadata['files'].values())


def _described(exported: Exported) -> str:
    metadata = exported.metadata
    return f'{metadata["format"]} with weights in {metadata["dtype"]}'


def _runner(exported: Exported) -> Any:
    """Loads a network and returns a function that segments or restores a (3, H, W) image in [-1, 1]."""
    if exported.metadata['kind'] == SEGMENTOR:
        model = ExportedSegmentor(exported)
        threshold = model.decode_head.threshold

        def segmented(image: Tensor) -> Tensor:
            labels = Labels(tuple(image.shape[1:]), {}, model.align_corners, threshold)
            for band in model.logit_bands(image[None], [{}]):
                labels.add(band[0])
            return labels.finished()

        return segmented
    restorer, window = ExportedRestorer(exported), min(exported.window)
    overlap = window - min(exported.metadata['stride'])
    return lambda image: blended(image, restorer, window, overlap, 1, restorer.size_multiple)
