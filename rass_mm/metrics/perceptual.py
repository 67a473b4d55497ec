"""Learned quality metrics through pyiqa, an optional package that fetches its weights from a hub on first use."""

import importlib
import os
from types import ModuleType

import numpy as np
import torch

from rass_mm.errors import ConfigError, DataError, InstallationError

PYIQA_NAMES = {
    'LPIPS': 'lpips',  # AlexNet, version 0.1
    'DISTS': 'dists',
    'MUSIQ': 'musiq',
    'MANIQA': 'maniqa-pipal',
    'CLIPIQA': 'clipiqa',
    'FID': 'fid',
}
"""This package's names of the metrics and pyiqa's."""
FULL_REFERENCE = ('LPIPS', 'DISTS')
"""Those that compare an image with its clean image; FID compares two folders, the others judge one image."""


class PerceptualMetric:
    """One of LPIPS, DISTS, MUSIQ, MANIQA and CLIPIQA, ready to score images.

    Creating it loads the weights; where they are not in pyiqa's cache yet, pyiqa fetches them.

    Args:
        name: the metric.
        device: where its network runs.

    Raises:
        ConfigError: there is no such metric.
        InstallationError: pyiqa or the metric's weights are absent.
    """

    def __init__(self, name: str, device: str | torch.device = 'cpu') -> None:
        if name not in PYIQA_NAMES or name == 'FID':
            known = ', '.join(key for key in PYIQA_NAMES if key != 'FID')
            raise ConfigError(f'There is no perceptual metric {name!r} for single images; choose from {known}.')
        self.name = name
        self.model = _create(name, device)

    def __call__(self, image: np.ndarray, truth: np.ndarray | None = None) -> float:
        """The score of an image.

        Args:
            image: (H, W, 3) RGB uint8, or floating point in 0..255.
            truth: the clean image of the same shape and range, for LPIPS and DISTS only.

        Raises:
            DataError: the clean image is missing or has another shape.
        """
        images = [image]
        if self.name in FULL_REFERENCE:
            if truth is None or truth.shape != image.shape:
                found = 'none was given' if truth is None else f'it has shape {truth.shape}'
                raise DataError(f'{self.name} needs a clean image of shape {image.shape}, but {found}.')
            images.append(truth)
        with torch.no_grad():  # pyiqa switches gradients off for the whole process; leaving the block undoes it
            return float(self.model(*(_as_batch(pixels) for pixels in images)))


def fid(folder: str | os.PathLike, truth_folder: str | os.PathLike, device: str | torch.device = 'cpu') -> float:
    """Fréchet inception distance between the images of two folders; lower is better.

    Args:
        folder: the restored images.
        truth_folder: the clean images; they need not correspond one by one.
        device: where the network runs.

    Raises:
        DataError: a folder is absent or holds fewer than two files.
        InstallationError: pyiqa or the metric's weights are absent.
    """
    for place in (folder, truth_folder):
        count = len(os.listdir(place)) if os.path.isdir(place) else 0
        if count < 2:
            raise DataError(f'FID needs two folders of at least two images each, but {place} holds {count}.')
    model = _create('FID', device)
    with torch.no_grad():
        return float(model(os.fspath(folder), os.fspath(truth_folder), num_workers=0, verbose=False))


def require_pyiqa(name: str) -> ModuleType:
    """The module pyiqa, imported now.

    Args:
        name: the metric that needs it, for the message.

    Raises:
        InstallationError: pyiqa is absent or cannot be imported here.
    """
    try:
        return importlib.import_module('pyiqa')
    except Exception as error:  # a pyiqa made for other library versions fails in many ways, not only by ImportError
        raise InstallationError(
            f'{name} needs the optional package pyiqa, which cannot be imported ({type(error).__name__}: {error}). '
            'Install it with: pip install --no-deps pyiqa (with its dependencies, pip may exchange transformers and '
            'accelerate for old versions that rass_mm does not work with), then install what its import still misses. '
            'Or leave the metric out: PSNR, SSIM and NIQE need no pyiqa.'
        ) from error


def _create(name: str, device: str | torch.device) -> torch.nn.Module:
    pyiqa = require_pyiqa(name)
    try:
        return pyiqa.create_metric(PYIQA_NAMES[name], device=torch.device(device))
    except Exception as error:  # no network shows as URLError, OSError, RuntimeError or an error of the hub's client
        raise InstallationError(
            f'{name}: pyiqa could not load its metric {PYIQA_NAMES[name]!r} ({type(error).__name__}: {error}). '
            f'It fetches weights from a hub on first use and keeps them in {torch.hub.get_dir()} and in the caches of '
            'the hubs that it asks. Use the metric once on a machine with network and copy these folders here, '
            'or leave the metric out.'
        ) from error


def _as_batch(image: np.ndarray) -> torch.Tensor:
    """(H, W, 3) in 0..255 to (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
