"""Systems of the demo and the `rass-mm` commands that train and test them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rass_mm.demo.base.shipped import shipped_base
from rass_mm.demo.settings import DemoSettings

ADAPTER = 'scr_adapter.safetensors'
"""Adapter file that the training of the restorer writes to its work folder, for RASS and `rass-mm restore`."""
MODES = ('restore', 'ceiling')
SPLITS = {'degraded': ('img_lq/val', '.png'), 'clean': ('img_dir/val', '.png')}
"""Maps 'degraded' and 'clean' validation scenes to the folder and the suffix of their images."""


@dataclass(frozen=True)
class System:
    """System that the demo trains or tests.

    Args:
        title: name in the results table.
        config: name of the shipped config.
        suffix: suffix that distinguishes work folders of systems with the same config.
    """

    title: str
    config: str
    suffix: str = ''

    @property
    def stem(self) -> str:
        """Name of the work folder."""
        return Path(self.config).stem + self.suffix


SCR = System('SCR', 'scr/scr_scenes_tiny.py')
RASS = System('RASS, no SCR', 'rass/rass_scenes_tiny.py')
RASS_SCR = System('RASS with SCR', 'rass/rass_scenes_tiny.py', suffix='-scr')
BASELINE = System('baseline (ResNet)', 'baselines/resnet_scenes_tiny.py')
LONGER = System('baseline (ResNet), longer', 'baselines/resnet_scenes_tiny.py', suffix='-longer')
"""The ResNet with more training steps, by default for about the CPU time that SCR and RASS take together."""
R2S = System('R2S: SCR, then baseline', 'baselines/resnet_scenes_tiny_r2s.py')
SYSTEMS = (BASELINE, LONGER, R2S, RASS, RASS_SCR)


@dataclass(frozen=True)
class Step:
    """Step of the demo: one `rass-mm` command.

    Args:
        name: name of the step in messages and in the name of its log file.
        arguments: arguments of `rass-mm`.
        trained: the system that the step trains; None for other steps.
    """

    name: str
    arguments: Sequence[str]
    trained: System | None = None


def scenes_folder(out: Path) -> Path:
    """Returns the folder of the scene data set."""
    return out / 'data' / 'scenes'


def data_steps(out: Path, settings: DemoSettings) -> list[Step]:
    """Returns the steps that draw the scenes and degrade the validation scenes."""
    scenes = scenes_folder(out)
    counts = ['--train', str(settings.train), '--val', str(settings.val)]
    folders = [str(scenes / SPLITS[split][0]) for split in ('clean', 'degraded')]
    return [
        Step('scenes', ['make-scenes', str(scenes), *counts, '--workers', '1']),
        Step('degrade', ['make-lq', *folders, '--workers', '1']),
    ]


def training(out: Path, settings: DemoSettings, system: System) -> list[Step]:
    """Returns a list with the training step of a system. It is empty if the system is already trained."""
    if checkpoint(out, settings, system).is_file():
        return []
    steps = max_iters(settings, system)
    options = [
        *('--resume', '--work-dir', str(out / system.stem), '--cfg-options', *_paths(out, system)),
        *(f'randomness.seed={settings.seed}', f'train_cfg.max_iters={steps}', f'train_cfg.val_interval={steps}'),
        f'param_scheduler.1.end={steps}',  # the poly decay ends at the last training step
    ]
    return [Step(f'train {system.stem}', ['train', system.config, *options], system)]


def segmentor_tests(out: Path, settings: DemoSettings, system: System) -> list[Step]:
    """Returns the steps that test a segmentor on the degraded and on the clean images and save its label maps."""
    steps = []
    for split, (folder, suffix) in SPLITS.items():
        changes = [
            f'test_dataloader.dataset.data_prefix.img_path={folder}',
            f'test_dataloader.dataset.img_suffix={suffix}',
        ]
        steps.append(_test(out, settings, system, split, changes))
    return steps


def restorer_tests(out: Path, settings: DemoSettings) -> list[Step]:
    """Returns the steps that test the restorer and, as its upper limit, the autoencoder on clean images."""
    return [_test(out, settings, SCR, mode, [f'model.test_cfg.mode={mode}']) for mode in MODES]


def _test(out: Path, settings: DemoSettings, system: System, kind: str, changes: list[str]) -> Step:
    name = f'{system.stem}-{kind}'
    arguments = [
        *('test', system.config, str(checkpoint(out, settings, system)), '--work-dir', str(out / 'tests' / name)),
        *('--out', str(out / 'predictions' / name), '--cfg-options', *_paths(out, system), *changes),
    ]
    return Step(f'test {system.stem} {kind}', arguments)


def _paths(out: Path, system: System) -> list[str]:
    """Returns the config overrides with the paths of the demo's data, base and adapter."""
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
    """Returns the path of the last checkpoint that the training of a system writes."""
    trained = BASELINE if system is R2S else system  # R2S uses the checkpoint of the baseline
    return out / trained.stem / f'iter_{max_iters(settings, trained)}.pth'


def max_iters(settings: DemoSettings, system: System) -> int:
    """Returns the number of training steps of a system."""
    special = {SCR: settings.restorer_steps, LONGER: settings.longer_steps}
    return special.get(system, settings.segmentor_steps)
