"""Learned quality metrics from pyiqa, an optional package that downloads its weights from a hub on first use."""

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
"""Maps the name of each metric in this package to its name in pyiqa."""
FULL_REFERENCE = ('LPIPS', 'DISTS')
"""Metrics that compare an image with its clean image. FID compares two folders; the others need only one image."""


class PerceptualMetric:
    """A perceptual metric for single images: LPIPS, DISTS, MUSIQ, MANIQA or CLIPIQA.

    The constructor loads the weights. If they are not in pyiqa's cache, pyiqa downloads them.

    Args:
        name: the name of the metric.
        device: the device of the network.

    Raises:
        ConfigError: the metric does not exist.
        InstallationError: pyiqa or the weights of the metric are missing.
    """

    def __init__(self, name: str, device: str | torch.device = 'cpu') -> None:
        if name not in PYIQA_NAMES or name == 'FID':
            known = ', '.join(key for key in PYIQA_NAMES if key != 'FID')
            raise ConfigError(f'There is no perceptual metric {name!r} for single images. Choose from {known}.')
        self.name = name
        self.model = _create(name, device)

    def __call__(self, image: np.ndarray, truth: np.ndarray | None = None) -> float:
        """Computes the score of an image.

        Args:
            image: (H, W, 3) RGB uint8, or floating point in 0..255.
            truth: the clean image of the same shape and range, for LPIPS and DISTS only.

        Raises:
            DataError: the metric is LPIPS or DISTS, and the clean image is missing or has another shape.
        """
        images = [image]
        if self.name in FULL_REFERENCE:
            if truth is None or truth.shape != image.shape:
                found = 'none was given' if truth is None else f'it has shape {truth.shape}'
                raise DataError(f'{self.name} needs a clean image of shape {image.shape} as `truth`, but {found}.')
            images.append(truth)
        with torch.no_grad():  # pyiqa disables gradients for the whole process; this block restores them
            return float(self.model(*(_as_batch(pixels) for pixels in images)))


def fid(folder: str | os.PathLike, truth_folder: str | os.PathLike, device: str | torch.device = 'cpu') -> float:
    """Computes the Fréchet inception distance between the images of two folders. Lower is better.

    Args:
        folder: the restored images.
        truth_folder: the clean images. They do not have to correspond one by one.
        device: the device of the network.

    Raises:
        DataError: a folder does not exist or contains fewer than two files.
        InstallationError: pyiqa or the weights of the metric are missing.
    """
    for place in (folder, truth_folder):
        count = len(os.listdir(place)) if os.path.isdir(place) else 0
        if count < 2:
            raise DataError(
                f'FID needs two folders with at least two images each, but {place} contains {count} file(s). Check the '
                'path.'
            )
    model = _create('FID', device)
    with torch.no_grad():
        return float(model(os.fspath(folder), os.fspath(truth_folder), num_workers=0, verbose=False))


def require_pyiqa(name: str) -> ModuleType:
    """Imports pyiqa and returns the module.

    Args:
        name: the metric that needs pyiqa, for the message.

    Raises:
        InstallationError: pyiqa is not installed or cannot be imported.
    """
    try:
        return importlib.import_module('pyiqa')
    except Exception as error:  # with other library versions, pyiqa may raise errors other than ImportError
        raise InstallationError(
            f'{name} needs the optional package pyiqa, which cannot be imported ({type(error).__name__}: {error}). '
            'Install it with: pip install --no-deps pyiqa (with its dependencies, pip may replace transformers and '
            'accelerate with old versions that rass_mm does not support). Then install the packages that '
            '`import pyiqa` reports as missing. Or omit the metric: PSNR, SSIM and NIQE do not need pyiqa.'
        ) from error


def _create(name: str, device: str | torch.device) -> torch.nn.Module:
    pyiqa = require_pyiqa(name)
    try:
        return pyiqa.create_metric(PYIQA_NAMES[name], device=torch.device(device))
    except Exception as error:  # without a network: URLError, OSError, RuntimeError or an error of the hub client
        raise InstallationError(
            f'{name}: pyiqa could not load its metric {PYIQA_NAMES[name]!r} ({type(error).__name__}: {error}). '
            f'pyiqa downloads weights from a hub on first use and keeps them in {torch.hub.get_dir()} and in the '
            'caches of the hubs that it uses. Use the metric once on a machine with a network and copy these folders '
            'here, or omit the metric.'
        ) from error


def _as_batch(image: np.ndarray) -> torch.Tensor:
    """Converts an image (H, W, 3) in 0..255 to a batch (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
