"""Hook that shows restored images and attention maps of validation images in the trackers of a training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmagic.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import Tensor

from rass_mm.config.arguments import Count
from rass_mm.diffusion.attention import class_maps, map_size
from rass_mm.diffusion.prompts import NOBODY
from rass_mm.restoration.samples import labels_of, to_bgr
from rass_mm.visualization import captioned, grid, heated

LARGEST = 512
"""Largest side in pixels of the part of an image whose attention is drawn."""
NARROWEST = 128
"""Smallest width of a picture in pixels; smaller ones are enlarged, so that their captions fit."""


@HOOKS.register_module()
class RestorationImagesHook(Hook):
    """Hook that draws the first images of each validation, and the attention to class words.

    The pictures are `val_NUMBER_NAME.png` (input, restored and clean image) and `attention_NUMBER_NAME.png` (the
    attention to some classes of the labels or, without labels, to those with the most concentrated attention).

    Args:
        count: number of images.
        words: number of class words per image.
    """

    def __init__(self, count: Count = 4, words: Count = 5) -> None:
        self.count, self.words = count, words
        self.drawn = 0

    def before_val_epoch(self, runner: Any) -> None:
        """Starts with the first image again."""
        self.drawn = 0

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Draws images of a batch until there are `count`."""
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for sample in (outputs or ())[: self.count - self.drawn]:
            name = f'{self.drawn}_{Path(sample.get("img_path", "image")).stem}.png'
            images = {'input': sample.input, 'restored': sample.output.pred_img, 'clean': sample.get('gt_img')}
            cells = {title: _pixels(image) for title, image in images.items() if image is not None}
            runner.visualizer.add_image(f'val_{name}', page(cells), runner.iter)
            heats = attention_cells(model, sample, self.words)
            if heats:
                runner.visualizer.add_image(f'attention_{name}', page(heats), runner.iter)
            self.drawn += 1


def page(cells: dict[str, np.ndarray]) -> np.ndarray:
    """Draws titled (H, W, 3) BGR pictures in a row, at the size of the first one, and returns it as RGB."""
    height, width = next(iter(cells.values())).shape[:2]
    factor = max(1, -(-NARROWEST // width))
    size = (width * factor, height * factor)
    row = [captioned(cv2.resize(cell, size, interpolation=cv2.INTER_NEAREST), title) for title, cell in cells.items()]
    return np.ascontiguousarray(grid(row, len(row))[..., ::-1])


@torch.no_grad()
def attention_cells(model: Any, sample: Any, words: int) -> dict[str, np.ndarray]:
    """Computes heat maps of the attention of a restorer to class words in the middle of an image.

    Args:
        model: the `SCRRestorer`.
        sample: a sample that the model has restored.
        words: number of classes.

    Returns:
        Class name -> (h, w, 3) BGR picture of the input under its heat map. Empty if the prompt names no classes.
    """
    generator, multiple = model.generator, model.generator.size_multiple
    height, width = (min(side, LARGEST) // multiple * multiple for side in sample.input.shape[1:])
    if not (height and width):
        return {}
    top, left = (sample.input.shape[1] - height) // 2, (sample.input.shape[2] - width) // 2
    middle = (slice(None), slice(top, top + height), slice(left, left + width))
    device = next(generator.parameters()).device
    image = (sample.input[middle].to(device).flip(0) / 127.5 - 1)[None]
    prompt = model.test_prompt(image, [sample])
    owners = prompt.owners[0]
    if (owners == NOBODY).all():
        return {}
    with generator.capturing() as maps:
        generator.restore_latent(generator.encode(image), prompt.context)
        tables = [table[0].float() for table in maps.values()]
    labels = labels_of([sample], device)
    chosen = _present(labels[0][middle[1:]], len(model.classes), words) if labels is not None else []
    heat = _averaged(tables, owners, chosen or range(len(model.classes)), (height, width))
    if not chosen:  # no labels, or only ignored ones
        chosen = (heat.amax((1, 2)) / heat.mean((1, 2)).clamp(min=1e-12)).topk(min(words, len(heat))).indices.tolist()
        heat = heat[chosen]
    source = _pixels(to_bgr(image[0]))
    return {model.classes[index]: heated(source, part.cpu().numpy()) for index, part in zip(chosen, heat, strict=True)}


def _present(labels: Tensor, classes: int, count: int) -> list[int]:
    """Returns the ids of the classes that cover most of (H, W) labels."""
    areas = torch.bincount(labels[labels < classes].flatten().long(), minlength=classes)
    return [index for index in areas.argsort(descending=True).tolist() if areas[index]][:count]


def _averaged(tables: list[Tensor], owners: Tensor, classes: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Returns the (K, H, W) attention to classes, averaged over layers at the size of the image."""
    maps = [class_maps(table, owners, classes, map_size(len(table), size))[None] for table in tables]
    return torch.stack([F.interpolate(part, size, mode='bilinear')[0] for part in maps]).mean(0)


def _pixels(image: Tensor) -> np.ndarray:
    """Converts a (3, H, W) BGR image in 0..255 to (H, W, 3) uint8."""
    return np.ascontiguousarray(image.detach().float().cpu().clamp(0, 255).round().byte().permute(1, 2, 0).numpy())
