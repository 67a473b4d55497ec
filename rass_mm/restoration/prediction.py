"""Prediction of SCR in tests: the scheme that `test_cfg` selects for an image of any size, and the attention ratio."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from mmagic.structures import DataSample
from torch import Tensor, nn

from rass_mm.diffusion.color import fix_colors
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm.diffusion.restorer import clamped
from rass_mm.diffusion.tiling import blended
from rass_mm.errors import ConfigError
from rass_mm.restoration.losses import attention_ratio
from rass_mm.restoration.samples import labels_of, to_bgr

TEST_MODES = ('restore', 'ceiling', 'input')


class PredictionMixin:
    """Mixin of `SCRRestorer` that restores images according to `test_cfg`.

    Attributes:
        generator: the one-step restorer.
        test_prompt: the prompt module for tests.
        test_cfg: see `SCRRestorer`.
    """

    generator: OneStepRestorer
    test_prompt: nn.Module
    test_cfg: dict[str, Any]

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: list[DataSample] | None = None) -> list[DataSample]:
        """Restores (B, 3, H, W) RGB images in [-1, 1].

        Returns:
            The samples with `output.pred_img` and `input`, each (3, H, W) BGR in 0..255, and, if
            `test_cfg.attention` is set, with `attention`, a dict of `ratio` and `chance`.
        """
        samples = data_samples if data_samples is not None else [DataSample() for _ in inputs]
        for image, sample in zip(inputs, samples, strict=True):
            with self._measuring(image, sample):
                restored = self.restore(self._source(image, sample), sample)
            sample.output = DataSample(pred_img=to_bgr(restored))
            sample.set_field(to_bgr(image), 'input')
        return samples

    def _source(self, image: Tensor, sample: DataSample) -> Tensor:
        """Returns the image to process: the degraded image, or the clean image in mode 'ceiling'.

        Raises:
            ConfigError: the mode is 'ceiling', but the sample has no clean image.
        """
        if self.test_cfg['mode'] != 'ceiling':
            return image
        if 'gt_img' not in sample:
            raise ConfigError("test_cfg.mode='ceiling' needs clean images. Pack `gt` in the test pipeline.")
        return (sample.gt_img.to(image).flip(0) / 127.5) - 1

    def restore(self, image: Tensor, sample: DataSample | None = None) -> Tensor:
        """Restores a (3, H, W) RGB image in [-1, 1] of any size: as a whole, in blended windows or in latent tiles.

        `test_cfg` selects the scheme. The prompt is computed from the whole image; a tagger may read `sample`.
        """
        model, mode, multiple = self.generator, self.test_cfg['mode'], self.generator.size_multiple
        tiled = mode == 'restore' and self._in_latent_tiles
        if mode == 'input':
            return image

        prompt = self.test_prompt(image[None], None if sample is None else [sample]) if mode == 'restore' else None

        def apply(images: Tensor) -> Tensor:
            if prompt is None:
                return model.decode(model.encode(images))
            given = prompt.repeated(len(images))
            return clamped(model(images, given.context if model.is_capturing else given.conditioning, tiled))

        if tiled:
            multiple = model.autoencoder.stride
        window = None if tiled else self.test_cfg.get('window')
        tiles = (-(-max(image.shape[1:]) // multiple) * multiple, 0, 1)
        if window is not None:
            tiles = (window, self.test_cfg.get('overlap', 0), self.test_cfg.get('window_batch', 1))
        return self._color_fixed(blended(image, apply, *tiles, multiple), image)

    @property
    def _in_latent_tiles(self) -> bool:
        return self.test_cfg.get('scheme') == 'osediff'

    def _color_fixed(self, restored: Tensor, source: Tensor) -> Tensor:
        method = self.test_cfg.get('color_fix', 'none')
        if method == 'none':
            return restored
        ours, given = (image.permute(1, 2, 0).float().cpu() / 2 + 0.5 for image in (restored, source))
        return torch.from_numpy(fix_colors(ours.numpy(), given.numpy(), method)).permute(2, 0, 1).to(restored) * 2 - 1

    @contextmanager
    def _measuring(self, image: Tensor, sample: DataSample) -> Iterator[None]:
        """Context manager. Adds the attention ratio of the restoration inside the block to a labelled sample.

        It has no effect unless `test_cfg.attention` is set.

        Raises:
            ConfigError: the restoration uses windows or tiles, whose maps do not cover the image.
        """
        labels = labels_of([sample], image.device)
        if not self.test_cfg.get('attention') or labels is None or self.test_cfg['mode'] != 'restore':
            yield
            return
        if self.test_cfg.get('window') is not None or self._in_latent_tiles:
            raise ConfigError('test_cfg.attention=True needs whole images. Remove test_cfg.window and test_cfg.scheme.')
        with self.generator.capturing() as maps:
            yield
        multiple = self.generator.size_multiple
        height, width = (-side % multiple for side in image.shape[1:])
        labels = F.pad(labels, (0, width, 0, height), value=255)
        ratio, chance = attention_ratio(maps, self.test_prompt(image[None], [sample]).owners, labels)
        sample.set_field({'ratio': ratio.item(), 'chance': chance.item()}, 'attention')
