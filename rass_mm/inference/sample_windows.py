"""Windows of image files as inputs of a network, e.g. to measure the range of its activations."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rass_mm.diffusion.tiling import mirrored_window
from rass_mm.errors import DataError
from rass_mm.files.images import READABLE, read_picture
from rass_mm.files.walking import chosen_files, walk
from rass_mm.inference.photos import read_bgr
from rass_mm.inference.segmentor import Segmentor

MOST = 300
"""Largest number of images that are used."""
Size = tuple[int, int]


def sample_files(folder: str | os.PathLike) -> list[Path]:
    """Returns the images of a folder and its subfolders, or `MOST` of them at equal distances in the sorted list.

    Raises:
        DataError: the folder does not exist, or contains no images.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f'{folder} is not a folder. Pass a folder with images.')
    names, _ = chosen_files(folder, walk(folder), READABLE)
    if not names:
        raise DataError(f'No images found in {folder}; searched for {", ".join(READABLE)}.')
    count = min(len(names), MOST)
    return [folder / names[index * len(names) // count] for index in range(count)]


def segmentor_windows(segmentor: Segmentor, files: Sequence[Path], window: Size) -> list[np.ndarray]:
    """Returns the middle window of each image after the test pipeline and the preprocessor of a segmentor.

    Args:
        segmentor: the segmentor.
        files: image files.
        window: height and width of a window.

    Returns:
        (1, 3, h, w) float32 for each image.

    Raises:
        DataError: an image cannot be read.
    """
    found = []
    for file in files:
        data = segmentor.packed(read_bgr(file, backend=segmentor.backend), os.fspath(file))
        found.append(_middle(segmentor.model.data_preprocessor(data, False)['inputs'][0], window))
    return found


def restorer_windows(files: Sequence[Path], window: Size) -> list[np.ndarray]:
    """Returns the middle window of each image as (1, 3, h, w) float32 RGB in [-1, 1].

    Raises:
        DataError: an image cannot be read.
    """
    pictures = (torch.from_numpy(read_picture(file).pixels).permute(2, 0, 1) * 2 - 1 for file in files)
    return [_middle(picture, window) for picture in pictures]


def _middle(image: Tensor, window: Size) -> np.ndarray:
    """Returns the window (1, 3, h, w) in the middle of an image (3, H, W), which is mirrored if it is smaller."""
    top, left = (max(side - own, 0) // 2 for side, own in zip(image.shape[1:], window, strict=True))
    return mirrored_window(image, (top, top + window[0], left, left + window[1]))[None].float().numpy()
