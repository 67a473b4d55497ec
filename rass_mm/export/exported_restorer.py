"""Exported restorer as a network for `rass_mm.inference`, which reads images, tiles them and writes results."""

import torch
from torch import Tensor

from rass_mm.diffusion.restorer import clamped
from rass_mm.diffusion.tiling import mirrored_window
from rass_mm.errors import ConfigError
from rass_mm.export.loading import load_network
from rass_mm.export.metadata import Exported


class ExportedRestorer:
    """Exported restorer with the interface of `rass_mm.diffusion.restorer.Restorer`.

    Args:
        exported: the exported model, of the kind 'restorer'.
    """

    def __init__(self, exported: Exported) -> None:
        self.window, self.run = exported.window, load_network(exported).run
        self.size_multiple = exported.metadata['preprocessing']['multiple']

    def __call__(self, images: Tensor) -> Tensor:
        """Restores (B, 3, h, w) RGB images in [-1, 1] that are not larger than a window.

        Returns:
            (B, 3, h, w) RGB, clamped to [-1, 1].

        Raises:
            ConfigError: the images are larger than the window of the network.
        """
        size = images.shape[2:]
        if any(side > own for side, own in zip(size, self.window, strict=True)):
            raise ConfigError(
                f'The exported network has windows of {self.window[0]}x{self.window[1]} pixels, not {size[0]}x{size[1]}'
                '. Remove window (--window), or export the restorer with another window.'
            )
        box = (0, self.window[0], 0, self.window[1])
        restored = [self.run(mirrored_window(image, box)[None].numpy()) for image in images]
        return clamped(torch.cat([torch.from_numpy(part)[..., : size[0], : size[1]] for part in restored]))
