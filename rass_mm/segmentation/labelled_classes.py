"""Hook that reports classes without labelled pixels in validation and test data."""

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

IDS = 256
FEW = 8


@HOOKS.register_module()
class LabelledClassesHook(Hook):
    """Counts labelled pixels per class during validation and tests, and warns about classes that have none.

    The IoU of such a class is NaN or 0, depending on the predictions, and mmseg's mean leaves out the NaN ones, so that
    the mean alone does not show them. `unlabelled` has their names after a test; None if the data has no labels.
    """

    def __init__(self) -> None:
        self.counts: Tensor | None = None
        self.unlabelled: list[str] | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Resets the counts."""
        self.counts, self.unlabelled = None, None

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Adds the labels of a batch."""
        for sample in outputs or ():
            label = sample.get('gt_sem_seg') if hasattr(sample, 'get') else None
            if label is not None:
                counts = torch.bincount(label.data.flatten().long().cpu(), minlength=IDS)[:IDS]
                self.counts = counts if self.counts is None else self.counts + counts

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Reports classes without labels in the validation data."""
        self._report(runner.val_dataloader.dataset, 'validation')

    def before_test_epoch(self, runner: Runner) -> None:
        """Resets the counts."""
        self.before_val_epoch(runner)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None
    ) -> None:
        """Adds the labels of a batch."""
        self.after_val_iter(runner, batch_idx, data_batch, outputs)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Reports classes without labels in the test data."""
        self._report(runner.test_dataloader.dataset, 'test')

    def _report(self, dataset: Any, split: str) -> None:
        names = list((getattr(dataset, 'metainfo', None) or {}).get('classes') or ())
        if self.counts is None or not names:
            return
        counts = self.counts.clone()
        all_reduce(counts)
        self.unlabelled = [name for name, count in zip(names, counts.tolist(), strict=False) if count == 0]
        if not self.unlabelled or not is_main_process():
            return
        if len(self.unlabelled) == len(names):
            told = f'No pixel of the {split} images has a label, so the metrics mean nothing.'
        else:
            shown = ', '.join(self.unlabelled[:FEW]) + (', ...' if len(self.unlabelled) > FEW else '')
            told = (
                f'{len(self.unlabelled)} of {len(names)} classes have no labelled pixel in the {split} images: '
                f'{shown}. Their metrics are 0 where they are predicted, and NaN, left out of the mean, elsewhere.'
            )
        print_log(f'{told} Check the label maps with rass-mm check-data.', 'current', logging.WARNING)
