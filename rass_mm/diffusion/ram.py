"""Tagger with the Recognize Anything Model (RAM), or its variant for degraded images (DAPE), from the `ram` package.

RAM's code and weights are not part of this package and have to be installed by the user. The weight files
are read without running any code that they contain. Outside training, the tags of each image are cached.
"""

import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rass_mm.diffusion.base_weights import on_meta
from rass_mm.diffusion.ram_network import FORKS, REMEDY, file_identity, load_network, without_downloads
from rass_mm.diffusion.tag_store import TagStore, image_key
from rass_mm.errors import ConfigError, InstallationError
from rass_mm_cli.bases import cache_folder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of each RGB channel in [0, 1] on ImageNet."""
DTYPES = {'float32': torch.float32, 'float16': torch.float16}
SEPARATORS = re.compile(r'[|,]')


class RAMTagger(nn.Module):
    """A `Tagger` that uses RAM (arXiv 2306.03514), or DAPE (arXiv 2311.16518) if `condition` is given.

    In eval mode, the tags of an image are computed once and cached in memory and in files under `cache`. In training
    mode, nothing is cached, because each crop is used only once. If a training sample contains its clean crop, the
    clean crop is tagged instead of the degraded one.

    The network is loaded when it is needed for the first time. It is frozen and not registered as a submodule, so it is
    not part of checkpoints, optimizers or `parameters()`. It runs on the device of the images.

    The defaults are those of RAM. The released RASS uses `padding=True`, `antialias=False` and `dtype='float16'`.

    Args:
        classes: not used. It exists so that all taggers have the same signature.
        weights: path of the weights of RAM, `ram_swin_large_14m.pth`.
        condition: path of the weights of DAPE, `DAPE.pth`. None uses plain RAM.
        image_size: side in pixels to which images are resized, 384 or 224.
        padding: whether to keep the padding of an image. Otherwise, the padding is removed first.
        antialias: whether to use antialiasing when an image is reduced to `image_size`.
        dtype: 'float32' or 'float16'. On the CPU, float32 is always used.
        cache: folder for the cached tags. None uses `cache_folder()`.

    Raises:
        ConfigError: a weights file does not exist, or `dtype` is not valid.
        InstallationError: the package `ram` is not installed.
    """

    needs_labels = False

    def __init__(
        self,
        classes: Sequence[str] = (),
        weights: str | os.PathLike = 'weights/ram_swin_large_14m.pth',
        condition: str | os.PathLike | None = None,
        image_size: int = 384,
        padding: bool = False,
        antialias: bool = True,
        dtype: str = 'float32',
        cache: str | os.PathLike | None = None,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ConfigError(f'tagger.dtype is {dtype!r}, but it must be one of {", ".join(DTYPES)}.')
        self.weights, self.condition = Path(weights), Path(condition) if condition else None
        self.image_size, self.padding, self.antialias, self.dtype = image_size, padding, antialias, DTYPES[dtype]
        # Bypasses nn.Module.__setattr__, which would register the network as a submodule.
        self.__dict__['network'] = None
        if on_meta():
            return
        if importlib.util.find_spec('ram') is None:
            raise InstallationError(
                f'RAMTagger needs the package ram (recognize-anything), which is not installed. Run: {REMEDY}'
            )
        identities = [file_identity(path) for path in (self.weights, self.condition) if path]
        # Another resize or precision may result in other tags, so it has another folder. The folder of the defaults is
        # that of tags stored before these options were introduced.
        switches = [*([] if antialias else ['aliased']), *([] if dtype == 'float32' else [dtype])]
        folder = '-'.join([*identities, str(image_size), *switches])
        self.store = TagStore((Path(cache) if cache else cache_folder()) / 'tags' / folder)

    @torch.no_grad()
    def tags(self, images: Tensor, data_samples: Sequence[Any] | None = None) -> list[list[str]]:
        """Returns the tags of each image, in RAM's order.

        Args:
            images: (B, 3, H, W) RGB in [-1, 1].
            data_samples: one sample per image. Its key `img_shape` is the size (h, w) of the image without the padding
                at the right and the bottom. In training mode, its key `gt`, a clean image of shape (h, w, 3) in BGR and
                uint8, is tagged instead of the image.

        Raises:
            InstallationError: the package `ram` cannot be used.
            CheckpointError: the weights are unsafe or damaged, or do not match the network.
        """
        samples = data_samples if data_samples is not None else [None] * len(images)
        seen = [self._seen(image, sample) for image, sample in zip(images, samples, strict=True)]
        if self.training:
            return self._ask(seen)
        keys = [image_key(image) for image in seen]
        known = {key: self.store.get(key) for key in keys}
        unknown = {key: image for key, image in zip(keys, seen, strict=True) if known[key] is None}
        if unknown:
            for key, tags in zip(unknown, self._ask([*unknown.values()]), strict=True):
                known[key] = tags
                self.store.put(key, tags)
        return [list(known[key]) for key in keys]

    def _seen(self, image: Tensor, sample: Any) -> Tensor:
        """Returns the image to be tagged, (3, h, w) RGB in [-1, 1]."""
        clean = sample.get('gt') if sample is not None and self.training else None
        if clean is not None:
            planes = torch.as_tensor(np.ascontiguousarray(np.asarray(clean)[..., ::-1]))
            return planes.permute(2, 0, 1).to(image.device, torch.float32) / 127.5 - 1
        known = None if sample is None or self.padding else sample.get('img_shape')
        height, width = known or image.shape[1:]
        return image[:, :height, :width].float()

    def _ask(self, images: Sequence[Tensor]) -> list[list[str]]:
        """Computes the tags of (3, h, w) RGB images in [-1, 1], which can differ in size."""
        batch = torch.stack([prepared(image, self.image_size, self.antialias) for image in images])
        dtype = self._dtype_on(batch.device)
        network = self._loaded().to(batch.device, dtype)
        with torch.autocast(batch.device.type, enabled=False):
            english = network.generate_tag(batch.to(dtype))[0]
        if len(english) != len(images) or not all(isinstance(text, str) for text in english):
            raise InstallationError(
                f'For {len(images)} images, the package ram returned {english!r}, but the first result of '
                f'generate_tag must be one text per image. Install recognize-anything, or put {FORKS} on PYTHONPATH.'
            )
        return [[tag for part in SEPARATORS.split(text) if (tag := part.strip())] for text in english]

    def _dtype_on(self, device: torch.device) -> torch.dtype:
        return torch.float32 if device.type == 'cpu' else self.dtype

    def _loaded(self) -> nn.Module:
        if self.network is None:
            # Drawing the initial values must not change the random numbers of a training run.
            with torch.random.fork_rng(devices=[]), without_downloads():
                self.__dict__['network'] = load_network(self.weights, self.condition, self.image_size)
        return self.network


def prepared(image: Tensor, size: int, antialias: bool = True) -> Tensor:
    """Converts a (3, h, w) RGB image in [-1, 1] to RAM's input, (3, size, size) with ImageNet normalization."""
    unit = (image[None] + 1) / 2
    square = F.interpolate(unit, (size, size), mode='bilinear', antialias=antialias, align_corners=False)
    mean, std = (torch.tensor(values, device=image.device).view(3, 1, 1) for values in (MEAN, STD))
    return (square[0] - mean) / std
