"""The ordinary commands behind one run, as they can be typed again."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from experiments.systems import ROOT, System
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
    def record(self) -> Path:
        """The JSON of this run."""
        return ROOT / 'results' / self.setting / f'{self.system.name}-seed{self.seed}.json'

    @property
    def folder(self) -> Path:
        """Where its logs, checkpoints and predictions are."""
        return self.folder_of(self.system.name)

    def folder_of(self, name: str) -> Path:
        """The folder of another system with the same data set and seed."""
        return WORK / self.setting / f'{name}-seed{self.seed}'

    @property
    def config(self) -> str:
        """The system's config."""
        return self.system.config(self.setting)

    @property
    def steps(self) -> int:
        """Training iterations of the checkpoint that is tested."""
        return load_config(self.config).train_cfg.max_iters

    @property
    def checkpoint(self) -> Path:
        """What is tested: its own last checkpoint, or that of the system it is trained as."""
        return self.folder_of(self.system.trained_as or self.system.name) / f'iter_{self.steps}.pth'

    @property
    def is_trained(self) -> bool:
        """Whether its work folder holds all that its tests and the systems that need it take from it."""
        files = [self.checkpoint, *([self.folder / ADAPTER] if self.system.restores else [])]
        return all(file.is_file() for file in files)

    @property
    def options(self) -> list[str]:
        """Overrides of the config: the seed, and what it takes from other systems."""
        options = [f'randomness.seed={self.seed}']
        if self.system.restorer:
            place = 'model.restorer.adapter' if self.system.trained_as else 'model.backbone.scr_adapter'
            options.append(f'{place}={(self.folder_of(self.system.restorer) / ADAPTER).as_posix()}')
        return options

    @property
    def training(self) -> list[str]:
        """`tools/train.py` with its arguments; nothing to train is an empty list."""
        if self.system.trained_as:
            return []
        place = ['--work-dir', self.folder.as_posix(), '--resume']
        return ['tools/train.py', self.config, *place, '--cfg-options', *self.options]

    @property
    def tests(self) -> dict[str, list[str]]:
        """`tools/test.py` with its arguments, per kind of test."""
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

    def outcome(self, test: str) -> Path:
        """Where a test leaves `metrics.json`."""
        return self.folder / f'test-{test}'

    def predictions(self, test: str) -> Path:
        """Where a test leaves label maps or images."""
        return self.folder / f'predicted-{test}'

    def _test(self, name: str, options: list[str]) -> list[str]:
        places = ['--work-dir', self.outcome(name).as_posix(), '--out', self.predictions(name).as_posix()]
        return [
            *('tools/test.py', self.config, self.checkpoint.as_posix(), *places),
            *('--cfg-options', *self.options, *options),
        ]


def typed(arguments: list[str]) -> str:
    """A command line that can be pasted into a shell."""
    return shlex.join(['python', *arguments])
