"""The main job end to end on the embedded default: scenes, base, restorer, segmentors, tests, one table, one page.

Every step is the ordinary command on the ordinary config, in its own process; finished steps are kept, so that a
stopped demo resumes.
"""

import json
import logging
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.logging import RichHandler

from rass_mm.analysis.report.tables import markdown_table
from rass_mm.apis import RESULT
from rass_mm.config import load_config
from rass_mm.datasets.scenes import PALETTE, SCENE_CLASSES
from rass_mm.diffusion.restorer import Restorer, load_restorer
from rass_mm.files.atomic import write_text
from rass_mm.inference.attention import class_attention
from rass_mm.metrics.iou import mean_iou
from rass_mm.parallel import run_logged
from rass_mm.protocol import copy_version
from rass_mm.visualization import colored, comparison_page, heated, labelled

logger = logging.getLogger(__name__)
ADAPTER = 'scr_adapter.safetensors'
"""What the restorer's training leaves in its work folder for RASS and for restoring files."""
Step = tuple[str, list[str]]
"""Name and arguments of one `rass-mm` command."""


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
SPLITS = {'degraded': ('img_lq/val', '.png'), 'clean': ('img_dir/val', '.png')}


def run_demo(out: Path) -> None:
    """Runs the demo into folder `out`: data, base, logs, `table.md` and `pictures.png`.

    Two lanes, one core each; a lane never waits inside for what the other one makes.

    Raises:
        RassError: a step failed; its last lines and its log are named.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s', handlers=[RichHandler(show_path=False)])
    started = time.monotonic()
    out = out.resolve()
    scenes = out / 'data' / 'scenes'
    degraded = scenes / 'img_lq' / 'val'
    data = [
        ('scenes', ['make-scenes', str(scenes), '--workers', '1']),
        ('degrade', ['make-lq', str(scenes / 'img_dir' / 'val'), str(degraded), '--workers', '1']),
    ]
    base = ('base', ['make-base', str(out / 'bases' / 'scenes-tiny')])
    _in_lanes(out, [base], [*data, *_train(out, BASELINE), *_tests(out, BASELINE)])
    _in_lanes(out, [*_train(out, SCR), *_restoration_tests(out)], [*_train(out, RASS), *_tests(out, RASS)])
    _in_lanes(out, [*_train(out, RASS_SCR), *_tests(out, RASS_SCR)], _tests(out, R2S))
    table = demo_table(out, scenes)
    write_text(out / 'table.md', table)
    demo_page(out, scenes)
    Console().print(table, markup=False)
    logger.info(
        'Done in %.0f s. Table: %s  pictures: %s', time.monotonic() - started, out / 'table.md', out / 'pictures.png'
    )


def _train(out: Path, system: System) -> list[Step]:
    """The training of one system, unless it is finished."""
    if _checkpoint(out, system).is_file():
        return []
    options = ['--resume', '--work-dir', str(out / system.stem), '--cfg-options', *_paths(out, system)]
    return [(f'train {system.stem}', ['train', system.config, *options])]


def _tests(out: Path, system: System) -> list[Step]:
    """The tests of one segmentor on both splits."""
    return [(f'test {system.stem} {split}', _testing(out, system, split)) for split in SPLITS]


def _restoration_tests(out: Path) -> list[Step]:
    """Scores of the restorer and of its ceiling; the restored images are kept for the picture."""
    return [(f'test {SCR.stem} {mode}', _restoring(out, mode)) for mode in ('restore', 'ceiling')]


def _restoring(out: Path, mode: str) -> list[str]:
    name = f'{SCR.stem}-{mode}'
    return [
        *('test', SCR.config, str(_checkpoint(out, SCR)), '--work-dir', str(out / 'tests' / name)),
        *('--out', str(out / 'predictions' / name), '--cfg-options', *_paths(out, SCR)),
        f'model.test_cfg.mode={mode}',
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
    """Overrides that point a config to the demo's data, base and adapter."""
    options = [f'{loader}_dataloader.dataset.data_root={out}/data/scenes' for loader in ('train', 'val', 'test')]
    base, adapter = f'{out}/bases/scenes-tiny', out / SCR.stem / ADAPTER
    if system is SCR:
        return [*options, f'model.base={base}']
    if system is R2S:
        return [*options, f'model.restorer.base={base}', f'model.restorer.adapter={adapter}']
    if system in (RASS, RASS_SCR):
        options = [*options, f'model.backbone.base={base}']
        return [*options, f'model.backbone.scr_adapter={adapter}'] if system is RASS_SCR else options
    return options


def _checkpoint(out: Path, system: System) -> Path:
    trained = BASELINE if system is R2S else system  # R2S runs the baseline's own checkpoint
    return out / trained.stem / f'iter_{load_config(trained.config).train_cfg.max_iters}.pth'


def _in_lanes(out: Path, *lanes: Sequence[Step]) -> None:
    """Runs lanes of steps side by side, one thread per process: on two cores, two of those beat one of two threads."""
    with ThreadPoolExecutor(len(lanes)) as pool:
        for result in [pool.submit(_in_order, out, lane) for lane in lanes]:
            result.result()


def _in_order(out: Path, steps: Sequence[Step]) -> None:
    for name, arguments in steps:
        started = time.monotonic()
        logger.info('%s ...', name)
        log = out / 'logs' / f'{name.replace(" ", "-")}.log'
        log.unlink(missing_ok=True)
        run_logged([sys.executable, '-W', 'ignore', '-m', 'rass_mm', *arguments], log, f'Step {name!r}')
        logger.info('%s done (%.0f s)', name, time.monotonic() - started)


def demo_table(out: Path, scenes: Path) -> str:
    """The demo's results as Markdown: mIoU of every system on both splits, then the restorer's figures."""
    rows = [['majority class', *[f'{100 * majority_miou(scenes):.2f}'] * len(SPLITS)]]
    for system in SYSTEMS:
        rows.append([system.title, *(f'{_metrics(out, f"{system.stem}-{split}")["mIoU"]:.2f}' for split in SPLITS)])
    protocol = (
        'mIoU (%) over all pixels of 100 validation scenes, 12 classes, 128x128, seed 0, degraded by recipe version '
        f'{copy_version(scenes / SPLITS["degraded"][0])}; measured by `rass-mm demo`.'
    )
    restored, ceiling = (_metrics(out, f'{SCR.stem}-{mode}') for mode in ('restore', 'ceiling'))
    figures = [
        ['degraded', f'{restored["input_PSNR"]:.2f}', f'{restored["input_SSIM"]:.3f}'],
        ['restored by SCR', f'{restored["PSNR"]:.2f}', f'{restored["SSIM"]:.3f}'],
        ['ceiling: clean through the autoencoder', f'{ceiling["PSNR"]:.2f}', f'{ceiling["SSIM"]:.3f}'],
    ]
    attention = (
        f"Share of the class words' attention on their masks: {restored['attention_ratio']:.3f} "
        f'(by chance {restored["attention_chance"]:.3f}).'
    )
    return '\n'.join(
        [
            f'{protocol}\n\n{markdown_table(["system", *SPLITS], rows)}',
            f'The same scenes restored:\n\n{markdown_table(["image", "PSNR (dB)", "SSIM"], figures)}',
            attention,
        ]
    )


def demo_page(out: Path, scenes: Path, count: int = 6) -> None:
    """Writes `pictures.png`: a row per scene, from the degraded input to the ground truth.

    Args:
        out: the demo's folder.
        scenes: the scene data set with its degraded copy.
        count: scenes shown, evenly spaced over the validation split.
    """
    restorer = load_restorer(out / SCR.stem / ADAPTER, out / 'bases' / 'scenes-tiny')
    names = sorted(file.name for file in (scenes / 'ann_dir' / 'val').glob('*.png'))
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, count).round().astype(int)]
    titles = ['degraded input', 'restored (SCR)', 'clean', 'attention', 'RASS with SCR', 'ground truth']
    rows = [_page_row(out, scenes, restorer, name) for name in chosen]
    comparison_page(out / 'pictures.png', titles, rows, SCENE_CLASSES, PALETTE)


def _page_row(out: Path, scenes: Path, restorer: Restorer, name: str) -> list[np.ndarray]:
    def read(*parts: str) -> np.ndarray:
        return cv2.imread(str(Path(*parts) / name), cv2.IMREAD_UNCHANGED)

    degraded, truth = read(scenes, 'img_lq', 'val'), read(scenes, 'ann_dir', 'val')
    predictions = out / 'predictions'
    # The second largest class: the largest is often just the ground.
    shown = SCENE_CLASSES[np.bincount(truth.ravel(), minlength=len(SCENE_CLASSES)).argsort()[-2]]
    heat = class_attention(restorer, degraded[..., ::-1].astype(np.float32) / 255, SCENE_CLASSES)[shown]
    return [
        degraded,
        read(predictions, f'{SCR.stem}-restore'),
        read(scenes, 'img_dir', 'val'),
        labelled(heated(degraded, heat), shown),
        colored(read(predictions, f'{RASS_SCR.stem}-degraded'), PALETTE),
        colored(truth, PALETTE),
    ]


def _metrics(out: Path, name: str) -> dict[str, float]:
    return json.loads((out / 'tests' / name / RESULT).read_text())['metrics']


def majority_miou(scenes: Path) -> float:
    """Mean IoU of calling every validation pixel by the training set's most frequent class."""

    def counts(split: str) -> np.ndarray:
        labels = (
            cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in sorted((scenes / 'ann_dir' / split).glob('*.png'))
        )
        return sum(np.bincount(label.ravel(), minlength=256)[: len(SCENE_CLASSES)] for label in labels)

    majority, truth = int(counts('train').argmax()), counts('val')
    confusion = np.zeros((len(truth), len(truth)), np.int64)
    confusion[:, majority] = truth
    return mean_iou(confusion)
