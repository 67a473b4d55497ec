"""Builds the `tools/train.py` and `tools/test.py` commands of a run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from experiments.rates import rate_override
from experiments.systems import System, systems_of
from rass_mm.config import load_config

WORK = Path('work_dirs/experiments')
ADAPTER = 'scr_adapter.safetensors'
SPLITS = {'degraded': ('img_lq/val', '.png'), 'clean': ('img_dir/val', '.png')}


@dataclass(frozen=True)
class Run:
    """Run of one system with one seed on one data set."""

    setting: str
    system: System
    seed: int

    @property
    def label(self) -> str:
        """Name of the run in logs and messages."""
        return f'{self.setting} {self.system.name} seed {self.seed}'

    @property
    def key(self) -> tuple[str, int]:
        """System and seed, which identify the record in the file of the data set."""
        return self.system.name, self.seed

    @property
    def folder(self) -> Path:
        """Folder of the logs, checkpoints and predictions."""
        return self.folder_of(self.system.name)

    def folder_of(self, name: str) -> Path:
        """Returns the folder of another system with the same data set and seed."""
        return WORK / self.setting / f'{name}-seed{self.seed}'

    @property
    def config(self) -> str:
        """Path of the config of the system."""
        return self.system.config_file(self.setting)

    @property
    def overrides(self) -> dict[str, Any]:
        """Config overrides by dotted key: the seed, the overrides of the system and the adapter of its restorer."""
        overrides = {
            'randomness.seed': self.seed,
            **rate_override(self.setting, self.system),
            **self.system.overrides_on(self.setting, self.seed),
        }
        if self.system.restorer:
            place = 'model.restorer.adapter' if self.system.trained_as else 'model.backbone.scr_adapter'
            overrides[place] = (self.folder_of(self.system.restorer) / ADAPTER).as_posix()
        if self.system.starts_from:
            (started,) = (s for s in systems_of(self.setting) if s.name == self.system.starts_from)
            start = Run(self.setting, started, self.seed).checkpoint.as_posix()
            overrides |= {'model.init_cfg.type': 'Pretrained', 'model.init_cfg.checkpoint': start}
        return overrides

    @property
    def options(self) -> list[str]:
        """Overrides in the syntax of `--cfg-options`."""
        return [option(key, value) for key, value in self.overrides.items()]

    def resolved(self) -> Config:
        """Returns the config with all overrides."""
        return load_config(self.config, self.overrides)

    @property
    def steps(self) -> int:
        """Number of training iterations of the tested checkpoint."""
        return self.resolved().train_cfg.max_iters

    @property
    def checkpoint(self) -> Path:
        """Path of the tested checkpoint: the last one of this system or of the system in `trained_as`."""
        return self.folder_of(self.system.trained_as or self.system.name) / f'iter_{self.steps}.pth'

    @property
    def is_trained(self) -> bool:
        """Whether the work folder contains the files required by the tests and by dependent systems."""
        files = [self.checkpoint, *([self.folder / ADAPTER] if self.system.restores else [])]
        return all(file.is_file() for file in files)

    @property
    def training(self) -> list[str]:
        """Returns the command line of `tools/train.py`, or an empty list if there is nothing to train."""
        if self.system.trained_as:
            return []
        place = ['--work-dir', self.folder.as_posix(), '--resume']
        return ['tools/train.py', self.config, *place, '--cfg-options', *self.options]

    @property
    def tests(self) -> dict[str, list[str]]:
        """Returns the command lines of `tools/test.py` by kind of test."""
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
        """Returns all commands in order, formatted for a shell."""
        return [typed(arguments) for arguments in (self.training, *self.tests.values()) if arguments]

    def outcome(self, test: str) -> Path:
        """Returns the folder in which a test writes `metrics.json`."""
        return self.folder / f'test-{test}'

    def predictions(self, test: str) -> Path:
        """Returns the folder in which a test writes label maps or images."""
        return self.folder / f'predicted-{test}'

    def _test(self, name: str, options: list[str]) -> list[str]:
        places = ['--work-dir', self.outcome(name).as_posix(), '--out', self.predictions(name).as_posix()]
        return [
            *('tools/test.py', self.config, self.checkpoint.as_posix(), *places),
            *('--cfg-options', *self.options, *options),
        ]


def option(key: str, value: Any) -> str:
    """Formats an override for `--cfg-options`, with lists and tuples without quotes and spaces."""
    text = re.sub("[ ']", '', str(value))
    return f'{key}={text}'


def typed(arguments: list[str]) -> str:
    """Formats a command line so that it can be pasted into a shell."""
    return shlex.join(['python', *arguments])
