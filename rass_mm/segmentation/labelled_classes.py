"""Hook that reports classes without labelled or predicted pixels in validation and test data."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

KEYS = ('gt_sem_seg', 'pred_sem_seg')
CORRECT = 'correct'
F_SCORE = 'mFscore'
OF_PREDICTED = (F_SCORE, 'mPrecision')
"""Metrics that are NaN for a class that is never predicted."""
CHECK = 'Check the label maps with rass-mm check-data.'
IDS = 256
IGNORED = 255
"""Label of the pixels that mmseg's metric ignores by default."""
FEW = 8


@HOOKS.register_module()
class LabelledClassesHook(Hook):
    """Hook that warns about classes whose metrics are NaN because they have no labelled or correctly predicted pixels.

    mmseg excludes NaN from its means, so a mean does not reveal such a class. For example, a class that is never
    predicted correctly lowers the mean IoU but not the mean F-score. After validation or a test, `unlabelled` is the
    list of the classes without labelled pixels, or None if the images have no labels.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Tensor] = {key: torch.zeros(IDS, dtype=torch.long) for key in (*KEYS, CORRECT)}
        self.unlabelled: list[str] | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Resets the counts."""
        self.__init__()

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Counts the labelled and predicted pixels of each class in a batch."""
        for sample in outputs or ():
            maps = {key: sample.get(key) for key in KEYS} if hasattr(sample, 'get') else {}
            if not maps or any(value is None for value in maps.values()):  # restored, or without labels
                continue
            label, predicted = (maps[key].data.flatten().long() for key in KEYS)
            if label.shape != predicted.shape:  # labels that were resized, which mmseg's metric refuses
                continue
            counted = label != IGNORED  # as in mmseg's metric
            label, predicted = label[counted], predicted[counted]
            parts = dict(zip(self.counts, (label, predicted, label[label == predicted]), strict=True))
            for key, value in parts.items():
                # Counted on the device, because the maps are large.
                self.counts[key] += torch.bincount(value, minlength=IDS)[:IDS].cpu()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Warns about classes without labelled or predicted pixels in the validation data."""
        self._report(runner.val_dataloader.dataset, 'validation', metrics)

    def before_test_epoch(self, runner: Runner) -> None:
        """Resets the counts."""
        self.before_val_epoch(runner)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Counts the labelled and predicted pixels of each class in a batch."""
        self.after_val_iter(runner, batch_idx, data_batch, outputs)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Warns about classes without labelled or predicted pixels in the test data."""
        self._report(runner.test_dataloader.dataset, 'test', metrics)

    def _report(self, dataset: Any, split: str, metrics: dict[str, float] | None) -> None:
        names = list((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
        for counts in self.counts.values():
            all_reduce(counts)  # called by every process, even by one without samples
        labelled, predicted, correct = (counts.tolist() for counts in self.counts.values())
        if not names or not any(labelled):
            return
        self.unlabelled = [name for name, count in zip(names, labelled, strict=False) if not count]
        if not is_main_process():
            return
        if len(self.unlabelled) == len(names):
            _warn(f'No pixel of the {split} images has the label of a class, so the metrics are meaningless. {CHECK}')
        elif self.unlabelled:
            _warn(
                f'Classes without labelled pixels in the {split} images: {_named(self.unlabelled, names)}. By default, '
                f'the IoU of such a class is 0 if it is predicted; otherwise it is NaN and excluded from the mean. '
                f'{CHECK}'
            )
        counted = list(zip(names, labelled, predicted, correct, strict=False))
        missed = [name for name, label, prediction, _ in counted if label and not prediction]
        wrong = [name for name, label, prediction, right in counted if label and prediction and not right]
        _warn_of_predictions(names, split, missed, wrong, {key.rpartition('/')[2] for key in metrics or ()})


def unlabelled(runner: Runner) -> list[str] | None:
    """Returns the names of the classes without labelled pixels in a test, or None if there are no labels."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, LabelledClassesHook)]
    return hooks[0].unlabelled if hooks else None


def _warn_of_predictions(
    names: Sequence[str], split: str, missed: Sequence[str], wrong: Sequence[str], reported: set[str]
) -> None:
    """Warns about classes that are never predicted, or never correctly, if one of the metrics hides this."""
    if missed and reported & set(OF_PREDICTED):
        _warn(
            f'Classes with labelled pixels but no predicted pixels in the {split} images: {_named(missed, names)}. '
            f'Their precision and F-score are NaN and excluded from the means, which are therefore too high.'
        )
    if wrong and F_SCORE in reported:
        _warn(
            f'Classes without a correctly predicted pixel in the {split} images: {_named(wrong, names)}. Their F-score '
            f'is NaN and excluded from the mean, which is therefore too high.'
        )


def _named(some: Sequence[str], names: Sequence[str]) -> str:
    shown = ', '.join(some[:FEW]) + (', ...' if len(some) > FEW else '')
    return f'{len(some)} of {len(names)} ({shown})'


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
