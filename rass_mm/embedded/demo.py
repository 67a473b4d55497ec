"""The main job end to end on the embedded default: scenes, base, degraded copy, two trainings, four tests, one page.

Every step is the ordinary command on the ordinary config, in its own process; finished steps are kept, so that a
stopped demo goes on where it was.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.logging import RichHandler

from rass_mm.apis import RESULT, load_config
from rass_mm.atomic import write_text
from rass_mm.embedded.pictures import comparison_page
from rass_mm.embedded.scenes import SCENE_CLASSES
from rass_mm.errors import RassError
from rass_mm.evaluation.tables import markdown_table, mean_iou

logger = logging.getLogger(__name__)
TAIL = 25
Step = tuple[str, list[str]]
"""Name and arguments of one `rass-mm` command."""


@dataclass(frozen=True)
class System:
    """One trained system of the demo."""

    title: str
    config: str

    @property
    def stem(self) -> str:
        """Name of its work folder."""
        return Path(self.config).stem


SYSTEMS = (System('RASS', 'rass/rass_scenes_tiny.py'), System('baseline (ResNet)', 'baselines/resnet_scenes_tiny.py'))
SPLITS = {'degraded': ('img_lq/val', '.png'), 'clean': ('img_dir/val', '.png')}


def run_demo(out: Path) -> None:
    """Runs the demo into folder `out`: data, base, logs, `table.md` and `pictures.png`.

    Two lanes, one core each: the base and then RASS on the first, data and the baseline on the second.

    Raises:
        RassError: a step failed; its last lines and its log are named.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s', handlers=[RichHandler(show_path=False)])
    started = time.monotonic()
    out = out.resolve()
    scenes, base = out / 'data' / 'scenes', out / 'bases' / 'scenes-tiny'
    degraded = scenes / 'img_lq' / 'val'
    rass, baseline = SYSTEMS
    first = [('base', ['make-base', str(base)])]
    second = [
        ('scenes', ['make-scenes', str(scenes), '--workers', '1']),
        ('degrade', ['make-lq', str(scenes / 'img_dir' / 'val'), str(degraded), '--workers', '1']),
        *_steps(out, baseline),
    ]
    _in_lanes(out, first, second)
    *training, one, other = _steps(out, rass)
    _in_lanes(out, training)
    _in_lanes(out, [one], [other])
    table = demo_table(out, scenes)
    write_text(out / 'table.md', table)
    comparison_page(
        out / 'pictures.png', scenes, {s.title: out / 'predictions' / f'{s.stem}-degraded' for s in SYSTEMS}
    )
    Console().print(table, markup=False)
    logger.info(
        'Done in %.0f s. Table: %s  pictures: %s', time.monotonic() - started, out / 'table.md', out / 'pictures.png'
    )


def _steps(out: Path, system: System) -> list[Step]:
    """Training (unless it is finished) and the two tests of one system."""
    training = [] if _trained(out, system) else [(f'train {system.stem}', _training(out, system))]
    return training + [(f'test {system.stem} {split}', _testing(out, system, split)) for split in SPLITS]


def _training(out: Path, system: System) -> list[str]:
    return [
        'train',
        system.config,
        '--resume',
        '--work-dir',
        str(out / system.stem),
        '--cfg-options',
        *_paths(out, system),
    ]


def _testing(out: Path, system: System, split: str) -> list[str]:
    folder, suffix = SPLITS[split]
    name = f'{system.stem}-{split}'
    return [
        *('test', system.config, str(_checkpoint(out, system)), '--work-dir', str(out / 'tests' / name)),
        *('--out', str(out / 'predictions' / name), '--cfg-options', *_paths(out, system)),
        f'test_dataloader.dataset.data_prefix.img_path={folder}',
        f'test_dataloader.dataset.img_suffix={suffix}',
    ]


def _paths(out: Path, system: System) -> list[str]:
    options = [f'{loader}_dataloader.dataset.data_root={out}/data/scenes' for loader in ('train', 'val', 'test')]
    return [*options, f'model.backbone.base={out}/bases/scenes-tiny'] if system.title == 'RASS' else options


def _checkpoint(out: Path, system: System) -> Path:
    return out / system.stem / f'iter_{load_config(system.config).train_cfg.max_iters}.pth'


def _trained(out: Path, system: System) -> bool:
    return _checkpoint(out, system).is_file()


def _in_lanes(out: Path, *lanes: Sequence[Step]) -> None:
    """Runs lanes of steps side by side, one thread per process: on two cores, two of those beat one of two threads."""
    with ThreadPoolExecutor(len(lanes)) as pool:
        for result in [pool.submit(_in_order, out, lane) for lane in lanes]:
            result.result()


def _in_order(out: Path, steps: Sequence[Step]) -> None:
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
    for name, arguments in steps:
        started = time.monotonic()
        logger.info('%s ...', name)
        log = out / 'logs' / f'{name.replace(" ", "-")}.log'
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, 'w') as stream:
            command = [sys.executable, '-W', 'ignore', '-m', 'rass_mm', *arguments]
            status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment).returncode
        if status:
            tail = '\n'.join(log.read_text(errors='replace').splitlines()[-TAIL:])
            raise RassError(f'Step {name!r} failed with status {status}. The end of {log}:\n{tail}')
        logger.info('%s done (%.0f s)', name, time.monotonic() - started)


def demo_table(out: Path, scenes: Path) -> str:
    """The demo's result as Markdown: mIoU of every system on both splits, the majority-class row first."""
    rows = [['majority class', *[f'{100 * majority_miou(scenes):.2f}'] * len(SPLITS)]]
    for system in SYSTEMS:
        files = [out / 'tests' / f'{system.stem}-{split}' / RESULT for split in SPLITS]
        rows.append([system.title, *(f'{json.loads(file.read_text())["metrics"]["mIoU"]:.2f}' for file in files)])
    protocol = (
        'mIoU (%) over all pixels of 100 validation scenes, 12 classes, 128x128, seed 0; measured by `rass-mm demo`.'
    )
    return f'{protocol}\n\n' + markdown_table(['system', *SPLITS], rows)


def majority_miou(scenes: Path) -> float:
    """Mean IoU of calling every validation pixel by the training set's most frequent class."""
    import cv2

    def counts(split: str) -> np.ndarray:
        labels = (
            cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in sorted((scenes / 'ann_dir' / split).glob('*.png'))
        )
        return sum(np.bincount(label.ravel(), minlength=256)[: len(SCENE_CLASSES)] for label in labels)

    majority, truth = int(counts('train').argmax()), counts('val')
    confusion = np.zeros((len(truth), len(truth)), np.int64)
    confusion[:, majority] = truth
    return mean_iou(confusion)
