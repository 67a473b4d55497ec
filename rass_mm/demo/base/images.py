"""Labelled training images of a small base: generated scenes or the training split of a segmentation config."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from rass_mm.datasets.scenes import SCENE_CLASSES
from rass_mm.demo.scenes.generator import make_scene
from rass_mm.errors import DataError
from rass_mm.files.hashing import json_sha256

SCENE_STREAM = 1_000_000_007
"""Seed of the first training scene of a base. Scenes of data sets have other seeds, which are hashes."""
PRESENT = 0.01
"""Fraction of a crop that a class must cover to be named in the caption of the crop."""


@dataclass(frozen=True)
class BaseImages:
    """Images (N, 3, H, W) uint8 RGB, labels (N, H, W) uint8 class ids, and class names."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def names(self, label: Tensor) -> list[str]:
        """Returns the names of the classes that cover at least 1 % of a label crop (h, w)."""
        shares = torch.bincount(label.flatten().long(), minlength=256)[: len(self.classes)] / label.numel()
        return [name for name, share in zip(self.classes, shares.tolist(), strict=True) if share >= PRESENT]


def draw_scenes(count: int, size: int, progress: Progress) -> BaseImages:
    """Draws `count` labelled scenes of `size` x `size` pixels."""
    task = progress.add_task('scenes', total=count, loss=math.nan)
    images, labels = [], []
    for index in range(count):
        image, label = make_scene(SCENE_STREAM + index, size, size)
        images.append(_planes(image))
        labels.append(torch.from_numpy(label))
        progress.advance(task)
    return BaseImages(torch.stack(images), torch.stack(labels), tuple(SCENE_CLASSES))


@dataclass(frozen=True)
class ConfiguredImages:
    """Training images of a segmentation config, without cropping and augmentation.

    Args:
        dataset: config of the training data set. Its pipeline is not used.
    """

    dataset: dict[str, Any]

    @property
    def key(self) -> str:
        """Hash of the names and sizes of all image and label files."""
        samples = [
            (Path(s[path]).name, Path(s[path]).stat().st_size)
            for s in self._samples()[0]
            for path in ('img_path', 'seg_map_path')
        ]
        return json_sha256(samples)[:12]

    def load(self, progress: Progress) -> BaseImages:
        """Reads all images and labels.

        Raises:
            DataError: no image was found, an image or label is damaged, or the images differ in size.
        """
        from mmengine.dataset import Compose

        samples, classes = self._samples()
        read = Compose(
            [{'type': 'mmseg.LoadImageStrict'}, {'type': 'mmseg.LoadLabelStrict', 'num_classes': len(classes)}]
        )
        task = progress.add_task('images', total=len(samples), loss=math.nan)
        images, labels = [], []
        for sample in samples:
            sample = read(sample)
            images.append(_planes(sample['img']))
            labels.append(torch.from_numpy(sample['gt_seg_map'].astype(np.uint8)))
            progress.advance(task)
        sizes = sorted({tuple(image.shape[1:]) for image in images})
        if len(sizes) != 1:
            raise DataError(
                f'A small base is trained on images of one size, but the data set has {len(sizes)} sizes, {sizes[0]} '
                f'to {sizes[-1]} (height, width). Resize or crop a copy of the images first.'
            )
        return BaseImages(torch.stack(images), torch.stack(labels), classes)

    def _samples(self) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        from mmseg.registry import DATASETS

        from rass_mm.datasets.preflight import check_data_folders
        from rass_mm.datasets.wrappers import data_infos

        check_data_folders({'dataset': self.dataset}, 'train_dataloader')
        dataset = DATASETS.build({**self.dataset, 'pipeline': []})
        return list(data_infos(dataset)), tuple(dataset.metainfo['classes'])


def _planes(image: np.ndarray) -> Tensor:
    """Converts an image from (H, W, 3) BGR to (3, H, W) RGB."""
    return torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))


def random_crops(
    count: int, available: int, size: Sequence[int], crop: int, generator: torch.Generator
) -> list[tuple[int, int, int, bool]]:
    """Draws positions of random square crops.

    Args:
        count: number of crops.
        available: number of images.
        size: (h, w) of the images in pixels.
        crop: side of a crop in pixels.
        generator: random generator that draws the crops.

    Returns:
        (image index, top, left, mirrored) of each crop. Mirrored crops are to be flipped horizontally.
    """
    chosen = torch.randint(available, (count,), generator=generator).tolist()
    tops = torch.randint(size[0] - crop + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(size[1] - crop + 1, (count,), generator=generator).tolist()
    mirrored = (torch.rand(count, generator=generator) < 0.5).tolist()
    return list(zip(chosen, tops, lefts, mirrored, strict=True))


def cut(images: Tensor, crops: Sequence[tuple[int, int, int, bool]], crop: int) -> Tensor:
    """Cuts crops (count, ..., crop, crop) from images (N, ..., H, W). Mirrored crops are flipped horizontally."""
    parts = [(images[i][..., y : y + crop, x : x + crop], mirrored) for i, y, x, mirrored in crops]
    return torch.stack([part.flip(-1) if mirrored else part for part, mirrored in parts])
