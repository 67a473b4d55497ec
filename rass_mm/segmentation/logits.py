"""Functions and a hook that control whether predictions keep their logits.

mmseg's API returns `seg_logits` with every prediction. The logits of 150 classes and 50 megapixels take 30 GB, so the
validation and test loops, which need only the labels, drop them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmseg.evaluation import IoUMetric
from torch import nn

from rass_mm.errors import ConfigError

KEPT_LOGITS = 2**29
"""Largest number of logits of a batch that is kept by default: 2 GiB in float32, or 3.5 megapixels of 150 classes."""
KEPT = '_kept_logits'
LABELS_ONLY = '_labels_only'


def keeps_logits(model: nn.Module) -> bool:
    """Returns whether the predictions of a segmentor currently keep their logits.

    `test_cfg.keep_logits` decides if it is set. Otherwise, logits are kept inside `keeping_logits`, except in the loops
    for which `LabelsOnlyHook` drops them.
    """
    chosen = model.test_cfg.get('keep_logits')
    return getattr(model, KEPT, False) and not getattr(model, LABELS_ONLY, False) if chosen is None else bool(chosen)


@contextmanager
def keeping_logits(model: nn.Module) -> Iterator[None]:
    """Context manager. Inside the block, a segmentor keeps its logits by default, see `keeps_logits`."""
    before = getattr(model, KEPT, False)
    setattr(model, KEPT, True)
    try:
        yield
    finally:
        setattr(model, KEPT, before)


def check_kept_size(classes: int, sizes: Sequence[Sequence[int]]) -> None:
    """Checks that the logits of a batch are few enough to be kept.

    Args:
        classes: number of classes.
        sizes: (H, W) of each prediction.

    Raises:
        ConfigError: there are more than `KEPT_LOGITS` logits.
    """
    pixels = sum(int(size[0]) * int(size[1]) for size in sizes)
    if classes * pixels <= KEPT_LOGITS:
        return
    raise ConfigError(
        f'The logits of {classes} classes and {pixels / 1e6:.1f} megapixels take {classes * pixels * 4 / 2**30:.1f} '
        f'GiB; the limit is {KEPT_LOGITS / classes / 1e6:.1f} megapixels. Set model.test_cfg.keep_logits=False '
        f'to get labels without seg_logits, or True to keep the logits at any size. You can also use rass-mm segment, '
        f'which does not keep logits.'
    )


def each_size(step: Callable[[dict[str, Any]], list], data: dict[str, Any]) -> list:
    """Calls `step` on a batch, or on each image separately if the sizes differ. Returns one result per image."""
    inputs = data.get('inputs')
    if not isinstance(inputs, list | tuple) or len({tuple(image.shape[-2:]) for image in inputs}) < 2:
        return step(data)
    samples = data.get('data_samples') or [None] * len(inputs)
    parts = zip(inputs, samples, strict=True)
    return [one for image, sample in parts for one in step({'inputs': [image], 'data_samples': sample and [sample]})]


@HOOKS.register_module()
class LabelsOnlyHook(Hook):
    """Hook that makes the validation and test loops drop the logits, unless they may be needed.

    Logits are kept for test-time augmentation, which merges them, and for metrics that may read them. These are all
    metrics except mmseg's `IoUMetric`, its subclasses, and metrics whose attribute `needs_logits` is False.
    """

    def before_val(self, runner: Runner) -> None:
        """Drops the logits of validation images if the metrics need only labels."""
        self._set(runner, labels_suffice(runner.val_loop.evaluator.metrics))

    def after_val(self, runner: Runner) -> None:
        """Stops dropping the logits."""
        self._set(runner, False)

    def before_test(self, runner: Runner) -> None:
        """Drops the logits of test images if the metrics need only labels and there is no test-time augmentation."""
        augmented = any(isinstance(module, BaseTTAModel) for module in runner.model.modules())
        self._set(runner, not augmented and labels_suffice(runner.test_loop.evaluator.metrics))

    def after_test(self, runner: Runner) -> None:
        """Stops dropping the logits."""
        self._set(runner, False)

    def _set(self, runner: Runner, only: bool) -> None:
        for module in runner.model.modules():
            if hasattr(module, KEPT):
                setattr(module, LABELS_ONLY, only)


def labels_suffice(metrics: Sequence[BaseMetric]) -> bool:
    """Returns whether all metrics are known to read only the labels of predictions, not their logits."""
    return all(isinstance(metric, IoUMetric) or not getattr(metric, 'needs_logits', True) for metric in metrics)
