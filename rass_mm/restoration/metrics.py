"""Evaluation of restored images: scores, image files and comparison pictures in one pass."""

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmagic.registry import METRICS
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from rass_mm.errors import ConfigError, DataError
from rass_mm.files.naming import relative_name
from rass_mm.files.portable import linked_or_copied
from rass_mm.metrics import perceptual, quality
from rass_mm.visualization import captioned, write_bgr

OWN: dict[str, Callable[..., float]] = {'PSNR': quality.psnr, 'SSIM': quality.ssim, 'NIQE': quality.niqe}
FULL_REFERENCE = ('PSNR', 'SSIM', *perceptual.FULL_REFERENCE)
NEED_CLEAN = (*FULL_REFERENCE, 'FID')
GAP = 4


@METRICS.register_module()
class RestorationMetrics(BaseMetric):
    """Metric that computes the scores of the restoration protocol and averages them over the images.

    Images are first rounded to uint8, as in image files. Values that are not finite (PSNR of identical images, NIQE of
    flat images) are omitted from the mean with a warning that counts them. If no value is finite, the mean is not
    finite either.

    Each data sample is a dict with images as (3, H, W) BGR tensors in 0..255: `output.pred_img` and, if available,
    `gt_img` (the clean image) and `input` (the degraded image). `img_path` names the image. `attention`, a dict of the
    numbers `ratio` and `chance`, is reported as `attention_ratio` and `attention_chance`, without NaN values.

    Args:
        scores: names of the scores: PSNR, SSIM and NIQE, and, if the package pyiqa is installed, LPIPS, DISTS, MUSIQ,
            MANIQA, CLIPIQA and FID. Scores that compare with the clean image skip images without one. If no image has
            one, `compute_metrics` raises an error.
        output_dir: folder for the restored images, which are written as PNG files with the names of the inputs; None
            writes none. Required for FID, which also writes the clean images to the subfolder `clean`.
        show_dir: folder for pictures that show each restored image beside its input and its clean image; None writes
            none.
        input_scores: whether to also compare the degraded input with the clean image, e.g. as `input_PSNR`.
        collect_device: 'cpu' or 'gpu', see mmengine's BaseMetric.
        prefix: prefix of all score names.

    Raises:
        ConfigError: a metric is unknown, or FID is used without `output_dir`.
        InstallationError: a metric needs pyiqa, which is not installed.
    """

    def __init__(
        self,
        scores: Sequence[str] = ('PSNR', 'SSIM'),
        output_dir: str | None = None,
        show_dir: str | None = None,
        input_scores: bool = True,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.scores = (scores,) if isinstance(scores, str) else tuple(scores)
        self.output_dir = Path(output_dir) if output_dir else None
        self.show_dir = Path(show_dir) if show_dir else None
        self.input_scores = input_scores
        self.device = torch.device('cpu')  # device of the perceptual networks, which is that of the restored images
        self._networks: dict[str, perceptual.PerceptualMetric] = {}
        self.image_root: Path | None = None
        """Folder that the names of written images are relative to. If None, the name of an image is its stem."""
        self._paths: dict[str, str] = {}
        self._check_metrics()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Scores and writes the images of a batch.

        Args:
            data_batch: not used.
            data_samples: outputs of the model, as described for the class.

        Raises:
            DataError: the images of a sample differ in size, contain NaN or infinity, or are too small for a metric, or
                two restored images would have the same name.
        """
        for sample in data_samples:
            try:
                self.results.append(self._process_one(sample))
            except DataError as error:
                raise DataError(f'{sample.get("img_path") or "An image without img_path"}: {error}') from error

    def compute_metrics(self, results: Sequence[dict]) -> dict[str, float]:
        """Computes the means over all images.

        Args:
            results: one dict of scores per image.

        Raises:
            ConfigError: a metric requires clean images, but no image has one.
        """
        lacking = [name for name in self.scores if name in NEED_CLEAN]
        if lacking and not any(result['has_clean'] for result in results):
            raise ConfigError(
                f'Clean images are required for {", ".join(lacking)}, but none of the {len(results)} images has one. '
                "Add 'gt_img' to the data samples, or use metrics that do not need it, such as scores=('NIQE',)."
            )
        names = [prefix + name for prefix in ('', 'input_') for name in self.scores]
        names += ['attention_ratio', 'attention_chance']
        columns = {name: [result[name] for result in results if name in result] for name in names}
        means = {name: _mean_of_finite(name, values) for name, values in columns.items() if values}
        if 'FID' in self.scores:
            means['FID'] = self._fid([result['name'] for result in results if result['has_clean']])
        return means

    def _check_metrics(self) -> None:
        known = [*OWN, *perceptual.PYIQA_NAMES]
        unknown = [name for name in self.scores if name not in known]
        if unknown:
            raise ConfigError(f'Unknown metrics: {", ".join(unknown)}. Choose from {", ".join(known)}.')
        if 'FID' in self.scores and self.output_dir is None:
            raise ConfigError('FID compares folders of images. Set output_dir to a folder for them.')
        for name in self.scores:  # so that a long test fails before its first image
            if name in perceptual.PYIQA_NAMES:
                perceptual.require_pyiqa(name)

    def _process_one(self, sample: dict) -> dict:
        self.device = sample['output']['pred_img'].device
        restored = _as_rgb(sample['output']['pred_img'], 'restored image')
        clean = _as_rgb(sample.get('gt_img'), 'clean image')
        degraded = _as_rgb(sample.get('input'), 'degraded input')
        name = self._unique_name(sample.get('img_path'))
        scores = {'name': name, 'has_clean': clean is not None, **_attention(sample), **self._scores(restored, clean)}
        if self.input_scores and degraded is not None and clean is not None:
            scores |= self._input_scores(degraded, clean)
        self._write(name, degraded, restored, clean)
        return scores

    def _scores(self, restored: np.ndarray, clean: np.ndarray | None) -> dict[str, float]:
        single = [name for name in self.scores if name not in NEED_CLEAN]
        scores = {name: self._scorer(name)(restored) for name in single}
        if clean is not None:
            paired = [name for name in self.scores if name in FULL_REFERENCE]
            scores |= {name: self._scorer(name)(restored, clean) for name in paired}
        return scores

    def _input_scores(self, degraded: np.ndarray, clean: np.ndarray) -> dict[str, float]:
        names = [name for name in self.scores if name in FULL_REFERENCE]
        if names and degraded.shape != clean.shape:
            raise DataError(
                f'the degraded input has shape {degraded.shape}, but the clean image has shape {clean.shape}. Resize '
                'the input before the model, or set input_scores=False.'
            )
        return {f'input_{name}': self._scorer(name)(degraded, clean) for name in names}

    def _scorer(self, name: str) -> Callable[..., float]:
        if name in OWN:
            return OWN[name]
        if name not in self._networks:
            self._networks[name] = perceptual.PerceptualMetric(name, self.device)
        return self._networks[name]

    def _unique_name(self, path: str | None) -> str:
        if path is None:
            return f'{get_rank()}-{len(self.results):06d}'
        name = Path(path).stem if self.image_root is None else relative_name(path, self.image_root, '')
        if self.output_dir or self.show_dir:
            other = self._paths.setdefault(name, path)
            if other != path:
                raise DataError(
                    f'{other} has the same name, so one restored image would overwrite the other. Rename one of them.'
                )
        return name

    def _write(self, name: str, degraded: np.ndarray | None, restored: np.ndarray, clean: np.ndarray | None) -> None:
        if self.output_dir:
            _write_png(self.output_dir / f'{name}.png', restored)
            if 'FID' in self.scores and clean is not None:
                _write_png(self.output_dir / 'clean' / f'{name}.png', clean)
        if self.show_dir:
            titled = {'input': degraded, 'restored': restored, 'clean': clean}
            _write_png(self.show_dir / f'{name}.png', _side_by_side(titled))

    def _fid(self, names: Sequence[str]) -> float:
        # Links to the images of this run only, because output_dir may contain images of an earlier run.
        with tempfile.TemporaryDirectory() as folder:
            restored, clean = Path(folder) / 'restored', Path(folder) / 'clean'
            for place, source in ((restored, self.output_dir), (clean, self.output_dir / 'clean')):
                place.mkdir()
                for number, name in enumerate(sorted(set(names))):
                    linked_or_copied((source / f'{name}.png').resolve(), place / f'{number}.png')
            return perceptual.fid(restored, clean, self.device)


def _as_rgb(image: torch.Tensor | None, what: str) -> np.ndarray | None:
    """Converts a (3, H, W) BGR tensor in 0..255 to (H, W, 3) RGB uint8, rounded."""
    if image is None:
        return None
    if image.ndim != 3 or image.shape[0] != 3:
        raise DataError(f'the {what} must have shape (3, H, W), but has {tuple(image.shape)}.')
    pixels = image.detach().float().cpu()
    if not torch.isfinite(pixels).all():
        raise DataError(f'the {what} contains NaN or infinity. The model has diverged, or float16 has overflowed.')
    return np.ascontiguousarray(pixels.clamp(0, 255).round().byte().numpy()[::-1].transpose(1, 2, 0))


def _attention(sample: dict) -> dict[str, float]:
    measured = sample.get('attention') or {}
    return {f'attention_{key}': float(value) for key, value in measured.items() if not np.isnan(float(value))}


def _mean_of_finite(name: str, values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    if len(finite) < len(values):
        count = f'{len(values) - len(finite)} of {len(values)}'
        print_log(
            f'{name} is not finite on {count} images. Such values are omitted from its mean.',
            'current',
            logging.WARNING,
        )
    return float(np.mean(finite or values))


def _side_by_side(titled: dict[str, np.ndarray | None]) -> np.ndarray:
    """Draws the images in a row with titles, at the size of the restored image."""
    height, width = titled['restored'].shape[:2]
    cells = []
    for title, image in titled.items():
        if image is not None:
            cell = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
            cells.append(captioned(cell, title, border=GAP))
    return np.hstack(cells)


def _write_png(target: Path, image: np.ndarray) -> None:
    write_bgr(target, image[..., ::-1])
