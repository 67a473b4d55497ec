"""Exported segmentor as a model for `rass_mm.inference`, which reads images, tiles them and writes results."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rass_mm.diffusion.prompts import Prompt
from rass_mm.errors import ConfigError
from rass_mm.export.loading import load_network
from rass_mm.export.metadata import Classes, Exported, Preprocessing
from rass_mm.labelling.sliding import slide


class WindowPreprocessor(nn.Module):
    """Data preprocessor for one image that is padded to at least one window.

    Args:
        settings: how images are converted.
        window: height and width of a window.
    """

    def __init__(self, settings: Preprocessing, window: tuple[int, int]) -> None:
        super().__init__()
        self.window, self.test_cfg = window, {'size_divisor': settings['multiple']}
        self.order = [2, 1, 0] if settings['channels'] == 'RGB' else [0, 1, 2]
        values = {name: torch.tensor(settings[name] or [0.0] * 3)[:, None, None] for name in ('mean', 'std', 'padding')}
        for name, value in values.items():
            self.register_buffer(name, value)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Converts `inputs`, a list with one (3, h, w) BGR image in 0..255, to a batch (1, 3, H, W)."""
        image, sample = data['inputs'][0], data['data_samples'][0]
        height, width = image.shape[1:]
        divisor = self.test_cfg['size_divisor']
        size = [max(-(-side // divisor) * divisor, own) for side, own in zip((height, width), self.window, strict=True)]
        inputs = self.padding.expand(3, *size).clone()
        inputs[:, :height, :width] = (image[self.order].float() - self.mean) / self.std
        padding = (0, size[1] - width, 0, size[0] - height)
        sample.set_metainfo({'img_padding_size': padding, 'pad_shape': tuple(size)})
        return {'inputs': inputs[None], 'data_samples': [sample]}


class ExportedHead(nn.Module):
    """Properties of the decode head of an exported segmentor that are used after the logits are computed.

    Args:
        classes: the labels of the segmentor.
    """

    def __init__(self, classes: Classes) -> None:
        super().__init__()
        self.threshold, self.scores = classes['threshold'], classes['scores']


class ExportedSegmentor(nn.Module):
    """Exported segmentor with the interface of an mmseg segmentor, as far as `rass_mm.inference` uses it.

    Args:
        exported: the exported model, of the kind 'segmentor'.
    """

    def __init__(self, exported: Exported) -> None:
        super().__init__()
        metadata, classes = exported.metadata, exported.metadata['classes']
        self.window, self.run = exported.window, load_network(exported).run
        self.out_channels, self.align_corners = metadata['output'][1], classes['align_corners']
        self.data_preprocessor = WindowPreprocessor(metadata['preprocessing'], self.window)
        self.decode_head = ExportedHead(classes)
        stride = tuple(metadata['stride'])
        self.test_cfg = {'mode': 'slide', 'crop_size': self.window, 'stride': stride, 'blend': classes['blend']}

    def prompt(self, inputs: Tensor, samples: list[Any] | None = None) -> None:
        """Returns None, because the network contains its prompt."""

    def logit_bands(
        self,
        inputs: Tensor,
        metas: list[dict],
        prompt: Prompt | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Iterator[Tensor]:
        """Yields the logits of an image in bands of rows, see `sliding.slide`.

        Args:
            inputs: (1, 3, H, W) image.
            metas: meta information of the image, which is not used.
            prompt: not used.
            settings: settings of the windows; None uses `test_cfg`.

        Returns:
            Bands (1, K, h, W).
        """
        return slide(inputs, settings or self.test_cfg, self._decode)

    def _decode(self, crops: Tensor, count: int) -> Tensor:
        if tuple(crops.shape[2:]) != self.window:
            raise ConfigError(
                f'The exported network has windows of {self.window[0]}x{self.window[1]} pixels, not '
                f'{crops.shape[2]}x{crops.shape[3]}. Remove mode (--mode) and window (--window), or export the model '
                'with another window.'
            )
        return torch.cat([torch.from_numpy(self.run(crop[None].numpy())) for crop in crops])
