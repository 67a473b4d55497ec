"""Commands and functions that take a checkpoint, and the data of the kit that they use."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

from campaign.kit import SMALL, data_options

Door = str | Callable[[str], Callable[[Path], object]]
DATA = ' '.join(data_options('$FX/data'))
RESNET, RASS = 'baselines/resnet_scenes_tiny.py', 'rass/rass_scenes_tiny.py'
RUN = (
    f'{DATA} {" ".join(SMALL)} train_cfg.max_iters=1 train_cfg.val_interval=1000 default_hooks.checkpoint.interval=1000'
)
BASED = 'model.backbone.base=$FX/base'
PRETRAINED = 'model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg._delete_=True model.backbone.init_cfg'
SWEEP = f'--out c --kinds blur --severities 1 --limit 2 --cfg-options {DATA}'
SPEED = '--size 64x64 --iterations 1 --warmup 1 --out speed'
RESTORE = '--base $FX/base --window 64 --overlap 16'


def _init_model(file: str, folder: Path) -> None:
    from mmseg.apis import init_model

    from rass_mm import config_path

    init_model(str(config_path(RESNET)), file, device='cpu')


def _loader(file: str, folder: Path) -> None:
    from mmengine.runner.checkpoint import CheckpointLoader

    CheckpointLoader.load_checkpoint(file, 'cpu')


def _inferencer(file: str, folder: Path) -> None:
    from mmseg.apis import MMSegInferencer

    from rass_mm import config_path

    MMSegInferencer(model=str(config_path(RESNET)), weights=file, device='cpu')


def _ram(file: str, folder: Path) -> None:
    from rass_mm.diffusion.ram_network import read_ram_weights

    read_ram_weights(Path(file))


def _load_segmentor(file: str, folder: Path) -> None:
    from rass_mm import load_segmentor

    load_segmentor(file, RESNET, device='cpu')


def python(function: Callable[[str, Path], None]) -> Door:
    """Returns the door of a function that takes the file and the folder."""
    return lambda file: functools.partial(function, file)


DOORS: dict[str, Door] = {
    'test': f'test {RESNET} @ --work-dir w --cfg-options {DATA}',
    'test RASS': f'test {RASS} @ --work-dir w --cfg-options {DATA} {BASED}',
    'load_from': f'train {RESNET} --work-dir w --cfg-options {RUN} load_from=@',
    'resume': f'train {RESNET} --work-dir w --resume @ --cfg-options {RUN} train_cfg.max_iters=4',
    'fine_tune': f'train {RESNET} --work-dir w --cfg-options {RUN} fine_tune=@',
    'init_cfg': f'train {RESNET} --work-dir w --cfg-options {RUN} {PRETRAINED}.checkpoint=@',
    'segment': 'segment $FX/good.png out --checkpoint @',
    'segment with a config': f'segment $FX/good.png out --checkpoint @ --config {RESNET}',
    'robustness': f'robustness {RESNET} @ {SWEEP}',
    'benchmark': f'benchmark {RESNET} @ {SPEED}',
    'convert': 'convert @ out.safetensors --base $FX/base',
    'convert rass': 'convert @ out --base $FX/base --kind rass',
    'convert scr': 'convert @ out.safetensors --base $FX/base --kind scr',
    'convert osediff': 'convert @ out.safetensors --base $FX/base --kind osediff',
    'restore': f'restore $FX/good.png out --adapter @ {RESTORE}',
    'attention': 'attention $FX/good.png --adapter @ --base $FX/base',
    'scr_adapter': f'train {RASS} --work-dir w --cfg-options {RUN} {BASED} model.backbone.scr_adapter=@',
    'init_model': python(_init_model),
    'CheckpointLoader': python(_loader),
    'MMSegInferencer': python(_inferencer),
    'RAM': python(_ram),
    'load_segmentor': python(_load_segmentor),
}
"""Doors of a checkpoint, whose name replaces `@`."""
MMENGINE = (
    *('test', 'load_from', 'resume', 'fine_tune', 'init_cfg', 'segment', 'segment with a config', 'robustness'),
    *('benchmark', 'init_model', 'CheckpointLoader', 'MMSegInferencer', 'load_segmentor'),
)
"""Doors that read checkpoints as mmengine writes them."""


def at(door: str, file: str) -> str | Callable[[Path], object]:
    """Returns the command of a door for a file."""
    command = DOORS[door]
    return command.replace('@', file) if isinstance(command, str) else command(file)


def write(name: str, content: bytes | Callable[[], bytes], folder: Path, kit: Path) -> None:
    """Writes a file of a case."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content())


def copy_base(change: Callable[[Path], None], folder: Path, kit: Path) -> None:
    """Copies the base of the kit to `base` and changes the copy."""
    shutil.copytree(kit / 'base', folder / 'base')
    change(folder / 'base')
