"""Decision whether a prediction keeps its logits.

mmseg's API returns `seg_logits` with every prediction. Those of 150 classes and 50 megapixels take 30 GB, so that the
validation and test loops, which need the labels only, do not keep them.
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
"""Number of logits of a batch that are kept by default: 2 GiB in float32; 3.5 megapixels of 150 classes."""
KEPT = '_kept_logits'
LABELS_ONLY = '_labels_only'


def keeps_logits(model: nn.Module) -> bool:
    """Returns whether predictions of a segmentor keep their logits now: by its `test_cfg`, or within `test_step`."""
    chosen = model.test_cfg.get('keep_logits')
    return getattr(model, KEPT, False) and not getattr(model, LABELS_ONLY, False) if chosen is None else bool(chosen)


@contextmanager
def keeping_logits(model: nn.Module) -> Iterator[None]:
    """Context manager in which a segmentor keeps its logits, unless its `test_cfg` or a loop says otherwise."""
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
        sizes: (H, W) of the predictions.

    Raises:
        ConfigError: there are more than `KEPT_LOGITS`.
    """
    pixels = sum(int(size[0]) * int(size[1]) for size in sizes)
    if classes * pixels <= KEPT_LOGITS:
        return
    raise ConfigError(
        f'The logits of {classes} classes and {pixels / 1e6:.1f} megapixels take {classes * pixels * 4 / 2**30:.1f} '
        f'GiB; the limit is {KEPT_LOGITS / classes / 1e6:.1f} megapixels. Set model.test_cfg.keep_logits=False '
        f'to get labels without seg_logits, or True to keep the logits at any size. rass-mm segment needs no logits.'
    )


def each_size(step: Callable[[dict[str, Any]], list], data: dict[str, Any]) -> list:
    """Calls `step` on a batch, or on each of its images if their sizes differ."""
    inputs = data.get('inputs')
    if not isinstance(inputs, list | tuple) or len({tuple(image.shape[-2:]) for image in inputs}) < 2:
        return step(data)
    samples = data.get('data_samples') or [None] * len(inputs)
    parts = zip(inputs, samples, strict=True)
    return [one for image, sample in parts for one in step({'inputs': [image], 'data_samples': sample and [sample]})]


@HOOKS.register_module()
class LabelsOnlyHook(Hook):
    """Makes validation and tests drop the logits, unless something may read them.

    They are kept for test-time augmentation, which merges them, and for evaluators that are not known to read labels
    only: any but mmseg's, and those whose attribute `needs_logits` is not False.
    """

    def before_val(self, runner: Runner) -> None:
        """Stops keeping the logits of validation images."""
        self._set(runner, labels_suffice(runner.val_loop.evaluator.metrics))

    def after_val(self, runner: Runner) -> None:
        """Returns to the behaviour before."""
        self._set(runner, False)

    def before_test(self, runner: Runner) -> None:
        """Stops keeping the logits of test images."""
        augmented = any(isinstance(module, BaseTTAModel) for module in runner.model.modules())
        self._set(runner, not augmented and labels_suffice(runner.test_loop.evaluator.metrics))

    def after_test(self, runner: Runner) -> None:
        """Returns to the behaviour before."""
        self._set(runner, False)

    def _set(self, runner: Runner, only: bool) -> None:
        for module in runner.model.modules():
            if hasattr(module, KEPT):
                setattr(module, LABELS_ONLY, only)


def labels_suffice(metrics: Sequence[BaseMetric]) -> bool:
    """Returns whether all metrics are known to read the labels of predictions and not their logits."""
    return all(isinstance(metric, IoUMetric) or not getattr(metric, 'needs_logits', True) for metric in metrics)
