"""The demo's systems and the `rass-mm` commands that train and test them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rass_mm.demo.base.shipped import shipped_base
from rass_mm.demo.settings import DemoSettings

ADAPTER = 'scr_adapter.safetensors'
"""What the restorer's training leaves in its work folder for RASS and for restoring files."""
MODES = ('restore', 'ceiling')
SPLITS = {'degraded': ('img_lq/val', '.png'), 'clean': ('img_dir/val', '.png')}
"""Split of the validation scenes -> folder and suffix of its images."""


@dataclass(frozen=True)
class System:
    """One trained or tested system of the demo."""

    title: str
    config: str
    suffix: str = ''

    @property
    def stem(self) -> str:
        """Name of its work folder."""
        return Path(self.config).stem + self.suffix


SCR = System('SCR', 'scr/scr_scenes_tiny.py')
RASS = System('RASS, no SCR', 'rass/rass_scenes_tiny.py')
RASS_SCR = System('RASS with SCR', 'rass/rass_scenes_tiny.py', suffix='-scr')
BASELINE = System('baseline (ResNet)', 'baselines/resnet_scenes_tiny.py')
R2S = System('R2S: SCR, then baseline', 'baselines/resnet_scenes_tiny_r2s.py')
SYSTEMS = (BASELINE, R2S, RASS, RASS_SCR)


@dataclass(frozen=True)
class Step:
    """One `rass-mm` command.

    Args:
        name: in the log and of its log file.
        arguments: of `rass-mm`.
        trained: the system whose training it is, if it is one.
    """

    name: str
    arguments: Sequence[str]
    trained: System | None = None


def scenes_folder(out: Path) -> Path:
    """Folder of the scene data set."""
    return out / 'data' / 'scenes'


def data_steps(out: Path, settings: DemoSettings) -> list[Step]:
    """Drawing of the scenes and degradation of the validation scenes."""
    scenes = scenes_folder(out)
    counts = ['--train', str(settings.train), '--val', str(settings.val)]
    folders = [str(scenes / SPLITS[split][0]) for split in ('clean', 'degraded')]
    return [
        Step('scenes', ['make-scenes', str(scenes), *counts, '--workers', '1']),
        Step('degrade', ['make-lq', *folders, '--workers', '1']),
    ]


def training(out: Path, settings: DemoSettings, system: System) -> list[Step]:
    """The training of one system, unless it is finished."""
    if checkpoint(out, settings, system).is_file():
        return []
    steps = max_iters(settings, system)
    options = [
        *('--resume', '--work-dir', str(out / system.stem), '--cfg-options', *_paths(out, system)),
        *(f'randomness.seed={settings.seed}', f'train_cfg.max_iters={steps}', f'train_cfg.val_interval={steps}'),
        f'param_scheduler.1.end={steps}',  # the poly decay ends with the training
    ]
    return [Step(f'train {system.stem}', ['train', system.config, *options], system)]


def segmentor_tests(out: Path, settings: DemoSettings, system: System) -> list[Step]:
    """The tests of one segmentor on both splits; the predictions are kept for the pictures."""
    steps = []
    for split, (folder, suffix) in SPLITS.items():
        changes = [
            f'test_dataloader.dataset.data_prefix.img_path={folder}',
            f'test_dataloader.dataset.img_suffix={suffix}',
        ]
        steps.append(_test(out, settings, system, split, changes))
    return steps


def restorer_tests(out: Path, settings: DemoSettings) -> list[Step]:
    """The tests of the restorer and of its ceiling; the restored images are kept for the pictures."""
    return [_test(out, settings, SCR, mode, [f'model.test_cfg.mode={mode}']) for mode in MODES]


def _test(out: Path, settings: DemoSettings, system: System, kind: str, changes: list[str]) -> Step:
    name = f'{system.stem}-{kind}'
    arguments = [
        *('test', system.config, str(checkpoint(out, settings, system)), '--work-dir', str(out / 'tests' / name)),
        *('--out', str(out / 'predictions' / name), '--cfg-options', *_paths(out, system), *changes),
    ]
    return Step(f'test {system.stem} {kind}', arguments)


def _paths(out: Path, system: System) -> list[str]:
    """Overrides that point a config to the demo's data, base and adapter."""
    options = [f'{loader}_dataloader.dataset.data_root={scenes_folder(out)}' for loader in ('train', 'val', 'test')]
    base, adapter = shipped_base(), out / SCR.stem / ADAPTER
    if system is SCR:
        return [*options, f'model.base={base}']
    if system is R2S:
        return [*options, f'model.restorer.base={base}', f'model.restorer.adapter={adapter}']
    if system in (RASS, RASS_SCR):
        options = [*options, f'model.backbone.base={base}']
        return [*options, f'model.backbone.scr_adapter={adapter}'] if system is RASS_SCR else options
    return options


def checkpoint(out: Path, settings: DemoSettings, system: System) -> Path:
    """The last checkpoint of a system's training."""
    trained = BASELINE if system is R2S else system  # R2S runs the baseline's own checkpoint
    return out / trained.stem / f'iter_{max_iters(settings, trained)}.pth'


def max_iters(settings: DemoSettings, system: System) -> int:
    """Training steps of a system."""
    return settings.restorer_steps if system is SCR else settings.segmentor_steps
