"""Hooks that write the predictions of a test: label maps, and pictures with the predictions drawn over the images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from rass_mm.datasets.wrappers import data_infos, image_folders
from rass_mm.errors import ConfigError
from rass_mm.files.atomic import write_bytes
from rass_mm.files.naming import common_root, output_names, refuse_inputs


def name_outputs(runner: Runner, out: str | None, show_dir: str | None, checkpoint: str | None) -> None:
    """Sets up a test to write its predictions to `out` and `show_dir`.

    The files are named after the images, with the path relative to the image folder.

    Args:
        runner: runner of the test. Hooks that write the files are added to it, unless its metrics write them.
        out: folder for label maps or restored images; None writes none.
        show_dir: folder for pictures of the predictions; None writes none.
        checkpoint: checkpoint file of the test, which no output may overwrite.

    Raises:
        DataError: two images would have the same output name, or an output would overwrite an input.
        ConfigError: a metric only writes label maps (`format_only`), and no folder is given for them.
    """
    for metric in runner.test_evaluator.metrics:
        if getattr(metric, 'format_only', False):
            _write_nothing(metric, out)
    if not (out or show_dir):
        return
    for folder in filter(None, (out, show_dir)):
        Path(folder).mkdir(parents=True, exist_ok=True)  # before minutes of prediction, in case it cannot be created
    samples = list(data_infos(runner.test_dataloader.dataset))
    paths = [info['img_path'] for info in samples if info.get('img_path')]
    root = common_root(image_folders(runner.test_dataloader.dataset), paths)
    names = output_names(paths, root, '.png')
    inputs = [info[key] for info in samples for key in ('img_path', 'seg_map_path', 'gt_path') if info.get(key)]
    for option, folder in (('--out', out), ('--show-dir', show_dir)):
        if folder:
            refuse_inputs(
                (Path(folder) / name for name in names.values()), [*inputs, *filter(None, [checkpoint])], option
            )
    scorers = [metric for metric in runner.test_evaluator.metrics if hasattr(metric, 'image_root')]
    for metric in scorers:
        metric.image_root = root
    if scorers:
        return
    if out:
        runner.register_hook(LabelMapHook(out, names))
    if show_dir:
        runner.register_hook(PredictionPictureHook(show_dir, names))


def _write_nothing(metric: Any, out: str | None) -> None:
    """Disables a `format_only` metric without `output_dir`, because `LabelMapHook` writes the label maps instead.

    The hook keeps the folders of the images in the names, whereas mmseg names the files by the stem alone.
    """
    if not (out or metric.output_dir):
        raise ConfigError(
            'A metric with format_only=True only writes label maps, but no folder was given for them. Pass --out DIR.'
        )
    if metric.output_dir is None:
        metric.compute_metrics = lambda results: {}


class _ImageHook(Hook):
    """Hook that writes one PNG file per tested image.

    Args:
        folder: the output folder.
        names: maps the path of each image to its file name in the folder.
    """

    def __init__(self, folder: str, names: dict[str, str]) -> None:
        self.folder, self.names = Path(folder), names

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Writes the images of a batch."""
        for sample in outputs or ():
            pixels = self._pixels(runner, sample)
            write_bytes(self.folder / self.names[sample.img_path], cv2.imencode('.png', pixels)[1].tobytes())

    def _pixels(self, runner: Any, sample: Any) -> np.ndarray:
        raise NotImplementedError


class LabelMapHook(_ImageHook):
    """Hook that writes the predicted class ids of each image as an 8-bit PNG, or 16-bit if an id is above 255.

    With `reduce_zero_label`, the ids are those of the label files (class id + 1), as in mmseg.
    """

    def _pixels(self, runner: Any, sample: Any) -> np.ndarray:
        labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy() + int(sample.get('reduce_zero_label', False))
        return labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)


class PredictionPictureHook(_ImageHook):
    """Hook that writes a picture of each image with its labels and prediction, drawn by the config's visualizer."""

    def _pixels(self, runner: Any, sample: Any) -> np.ndarray:
        backends, memory = runner.visualizer._vis_backends, _Memory()
        runner.visualizer._vis_backends = {'memory': memory}
        try:
            image = mmcv.imfrombytes(Path(sample.img_path).read_bytes(), channel_order='rgb')
            runner.visualizer.add_datasample('test', image, data_sample=sample)
        finally:
            runner.visualizer._vis_backends = backends
        return np.ascontiguousarray(memory.image[..., ::-1])


class _Memory:
    """Visualization backend that keeps the last picture, (H, W, 3) RGB."""

    image: np.ndarray

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **_: Any) -> None:
        """Keeps a picture in memory. mmengine's own backend cannot write to file names that are not UTF-8."""
        self.image = image
