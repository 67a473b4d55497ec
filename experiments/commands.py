"""The `tools/train.py` and `tools/test.py` commands of one run, each of which can be typed again."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from experiments.systems import System
from rass_mm.config import load_config

WORK = Path('work_dirs/experiments')
ADAPTER = 'scr_adapter.safetensors'
SPLITS = {'degraded': ('img_lq/val', '.png'), 'clean': ('img_dir/val', '.png')}


@dataclass(frozen=True)
class Run:
    """One system with one seed on one data set."""

    setting: str
    system: System
    seed: int

    @property
    def label(self) -> str:
        """For logs and messages."""
        return f'{self.setting} {self.system.name} seed {self.seed}'

    @property
    def key(self) -> tuple[str, int]:
        """System and seed: identifies its record among those of the data set."""
        return self.system.name, self.seed

    @property
    def folder(self) -> Path:
        """Its logs, checkpoints and predictions."""
        return self.folder_of(self.system.name)

    def folder_of(self, name: str) -> Path:
        """The folder of another system with the same data set and seed."""
        return WORK / self.setting / f'{name}-seed{self.seed}'

    @property
    def config(self) -> str:
        """Path of the system's config."""
        return self.system.config_file(self.setting)

    @property
    def overrides(self) -> dict[str, Any]:
        """Values by dotted key over those of the config: the seed, the row's own, and the adapter of its restorer."""
        overrides = {'randomness.seed': self.seed, **self.system.overrides_on(self.setting)}
        if self.system.restorer:
            place = 'model.restorer.adapter' if self.system.trained_as else 'model.backbone.scr_adapter'
            overrides[place] = (self.folder_of(self.system.restorer) / ADAPTER).as_posix()
        return overrides

    @property
    def options(self) -> list[str]:
        """The overrides as `--cfg-options` reads them."""
        return [option(key, value) for key, value in self.overrides.items()]

    def resolved(self) -> Config:
        """The config with all overrides."""
        return load_config(self.config, self.overrides)

    @property
    def steps(self) -> int:
        """Training iterations of the checkpoint that is tested."""
        return self.resolved().train_cfg.max_iters

    @property
    def checkpoint(self) -> Path:
        """The tested checkpoint: its own last one, or that of the system it is trained as."""
        return self.folder_of(self.system.trained_as or self.system.name) / f'iter_{self.steps}.pth'

    @property
    def is_trained(self) -> bool:
        """Whether its work folder holds the files that its tests, and the systems that need it, take from it."""
        files = [self.checkpoint, *([self.folder / ADAPTER] if self.system.restores else [])]
        return all(file.is_file() for file in files)

    @property
    def training(self) -> list[str]:
        """`tools/train.py` with its arguments; an empty list if there is nothing to train."""
        if self.system.trained_as:
            return []
        place = ['--work-dir', self.folder.as_posix(), '--resume']
        return ['tools/train.py', self.config, *place, '--cfg-options', *self.options]

    @property
    def tests(self) -> dict[str, list[str]]:
        """`tools/test.py` with its arguments, by kind of test."""
        if self.system.restores:
            return {mode: self._test(mode, [f'model.test_cfg.mode={mode}']) for mode in ('restore', 'ceiling')}
        return {
            split: self._test(
                split,
                [
                    f'test_dataloader.dataset.data_prefix.img_path={folder}',
                    f'test_dataloader.dataset.img_suffix={suffix}',
                ],
            )
            for split, (folder, suffix) in SPLITS.items()
        }

    @property
    def commands(self) -> list[str]:
        """All its commands, in order, for a shell."""
        return [typed(arguments) for arguments in (self.training, *self.tests.values()) if arguments]

    def outcome(self, test: str) -> Path:
        """The folder in which a test writes `metrics.json`."""
        return self.folder / f'test-{test}'

    def predictions(self, test: str) -> Path:
        """The folder in which a test writes label maps or images."""
        return self.folder / f'predicted-{test}'

    def _test(self, name: str, options: list[str]) -> list[str]:
        places = ['--work-dir', self.outcome(name).as_posix(), '--out', self.predictions(name).as_posix()]
        return [
            *('tools/test.py', self.config, self.checkpoint.as_posix(), *places),
            *('--cfg-options', *self.options, *options),
        ]


def option(key: str, value: Any) -> str:
    """One override as `--cfg-options` reads it: lists and tuples without quotes and spaces."""
    text = re.sub("[ ']", '', str(value))
    return f'{key}={text}'


def typed(arguments: list[str]) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(['python', *arguments])
