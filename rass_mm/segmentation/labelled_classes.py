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
OF_PREDICTED = ('mFscore', 'mPrecision')
"""Metrics that are NaN for a class that is never predicted."""
CHECK = 'Check the label maps with rass-mm check-data.'
IDS = 256
FEW = 8


@HOOKS.register_module()
class LabelledClassesHook(Hook):
    """Warns about classes whose metrics are NaN, because they have no labelled or no predicted pixels.

    mmseg's means leave out NaN, so that a mean alone does not show them: a class that is never predicted lowers the
    mean IoU, but not the mean F-score. `unlabelled` has the names of the classes without labels after a test; None if
    the data has no labels.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Tensor] = {key: torch.zeros(IDS, dtype=torch.long) for key in KEYS}
        self.unlabelled: list[str] | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Resets the counts."""
        self.__init__()

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Adds the labels and predictions of a batch."""
        for sample in outputs or ():
            maps = {key: sample.get(key) for key in KEYS} if hasattr(sample, 'get') else {}
            if not maps or any(value is None for value in maps.values()):  # of a restorer, or of images without labels
                continue
            for key, value in maps.items():
                counts = torch.bincount(value.data.flatten().long(), minlength=IDS)[:IDS]
                self.counts[key] += counts.cpu()  # counted on the device: the maps are large

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Reports the classes of the validation data."""
        self._report(runner.val_dataloader.dataset, 'validation', metrics)

    def before_test_epoch(self, runner: Runner) -> None:
        """Resets the counts."""
        self.before_val_epoch(runner)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Adds the labels and predictions of a batch."""
        self.after_val_iter(runner, batch_idx, data_batch, outputs)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Reports the classes of the test data."""
        self._report(runner.test_dataloader.dataset, 'test', metrics)

    def _report(self, dataset: Any, split: str, metrics: dict[str, float] | None) -> None:
        names = list((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
        for counts in self.counts.values():
            all_reduce(counts)  # of every process, also of one without a sample
        labelled, predicted = (self.counts[key].tolist() for key in KEYS)
        if not names or not any(labelled):
            return
        self.unlabelled = [name for name, count in zip(names, labelled, strict=False) if not count]
        counted = zip(names, labelled, predicted, strict=False)
        missed = [name for name, label, prediction in counted if label and not prediction]
        if not is_main_process():
            return
        if len(self.unlabelled) == len(names):
            _warn(f'No pixel of the {split} images has a label of a class, so the metrics mean nothing. {CHECK}')
        elif self.unlabelled:
            _warn(
                f'{_named(self.unlabelled, names)} no labelled pixel in the {split} images. Their metrics are 0 where '
                f'they are predicted; elsewhere they are NaN and left out of the mean. {CHECK}'
            )
        if missed and any(key.rpartition('/')[2] in OF_PREDICTED for key in metrics or ()):
            _warn(
                f'{_named(missed, names)} labels but no predicted pixel in the {split} images. Their precision and '
                f'F-score are NaN and left out of the means, which are therefore too high.'
            )


def _named(some: Sequence[str], names: Sequence[str]) -> str:
    shown = ', '.join(some[:FEW]) + (', ...' if len(some) > FEW else '')
    return f'{len(some)} of {len(names)} classes ({shown}) have'


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
