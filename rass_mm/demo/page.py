"""Picture page of the demo: three selected scenes with the predictions of two systems and the ground truth."""

import textwrap
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rass_mm.datasets.scenes import PALETTE, SCENE_CLASSES
from rass_mm.demo.settings import DemoSettings
from rass_mm.demo.steps import BASELINE, RASS_SCR, SCR, System, max_iters, scenes_folder
from rass_mm.files.atomic import atomic_path
from rass_mm.visualization import colored

PAGE = 'pictures.png'
WIDTH, HEIGHT, DPI = 9.43, 7.9, 100
RULE = (
    'Rows: the scenes whose gain of RASS over the ResNet, in share of pixels labelled correctly, is the largest, the '
    'median and the smallest.'
)
INK, GREY = '#222222', '#666666'


@dataclass(frozen=True)
class Scored:
    """Pixel accuracies of the ResNet and of RASS in one scene, each in [0, 1]."""

    name: str
    resnet: float
    rass: float

    @property
    def gain(self) -> float:
        """Pixel accuracy of RASS minus that of the ResNet."""
        return self.rass - self.resnet


def demo_page(out: Path, settings: DemoSettings) -> None:
    """Writes `pictures.png`, which shows the input, restored image, predictions and ground truth of three scenes."""
    scored = score_scenes(out)
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor='white')
    _write_texts(figure, scored, settings)
    axes = figure.subplots(
        3, 5, gridspec_kw=dict(left=0.065, right=0.99, top=0.83, bottom=0.105, wspace=0.04, hspace=0.16)
    )
    titles = ('degraded input', 'restored by SCR', 'ResNet', 'RASS with SCR', 'ground truth')
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=11, color=INK, pad=7)
    for row, (label, scene) in zip(axes, extremes(scored).items(), strict=True):
        _draw_row(row, out, scene)
        row[0].set_ylabel(f'{label}\n{100 * scene.gain:+.1f} points', fontsize=10, color=INK)
    legend = [
        Patch(facecolor=np.array(color) / 255, label=name) for name, color in zip(SCENE_CLASSES, PALETTE, strict=True)
    ]
    figure.legend(handles=legend, loc='lower center', ncol=6, fontsize=9, frameon=False, handlelength=1.2)
    with atomic_path(out / PAGE) as temporary:
        figure.savefig(temporary)


def extremes(scored: list[Scored]) -> dict[str, Scored]:
    """Returns the scenes with the largest, the median and the smallest gain, as 'best', 'median' and 'worst'."""
    ranked = sorted(scored, key=lambda scene: (scene.gain, scene.name))
    return {'best': ranked[-1], 'median': ranked[(len(ranked) - 1) // 2], 'worst': ranked[0]}


def score_scenes(out: Path) -> list[Scored]:
    """Returns the pixel accuracies of the ResNet and of RASS in each degraded validation scene."""
    scored = []
    for file in sorted((scenes_folder(out) / 'ann_dir' / 'val').glob('*.png')):
        truth = _read(file)
        predictions = [_read(_predicted(out, system) / file.name) for system in (BASELINE, RASS_SCR)]
        scored.append(Scored(file.name, *(float((prediction == truth).mean()) for prediction in predictions)))
    return scored


def _write_texts(figure: Figure, scored: list[Scored], settings: DemoSettings) -> None:
    means = [100 * float(np.mean([getattr(scene, name) for scene in scored])) for name in ('resnet', 'rass')]
    wins = sum(scene.gain > 0 for scene in scored)
    figure.text(0.065, 0.96, 'Segmentation of degraded scenes: a small RASS beside a ResNet', fontsize=14, color=INK)
    lines = (
        f'Seed {settings.seed}, {max_iters(settings, RASS_SCR)} training steps each, {len(scored)} validation scenes. '
        f'Mean share of pixels labelled correctly: ResNet {means[0]:.1f} %, RASS with SCR {means[1]:.1f} %;\n'
        f'RASS is ahead on {wins} scenes. {RULE}'
    )
    figure.text(0.065, 0.945, _wrapped(lines), fontsize=8.5, color=GREY, va='top', linespacing=1.4)


def _wrapped(text: str, width: int = 140) -> str:
    return textwrap.fill(' '.join(text.split()), width)


def _draw_row(row: np.ndarray, out: Path, scene: Scored) -> None:
    scenes = scenes_folder(out)
    restored = out / 'predictions' / f'{SCR.stem}-restore'
    photos = [_read(folder / scene.name) for folder in (scenes / 'img_lq' / 'val', restored)]
    labels = [_read(_predicted(out, system) / scene.name) for system in (BASELINE, RASS_SCR)]
    labels.append(_read(scenes / 'ann_dir' / 'val' / scene.name))
    for axis, picture in zip(row, [*photos, *(colored(label, PALETTE) for label in labels)], strict=True):
        axis.imshow(picture[..., ::-1], interpolation='nearest')
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, share in zip(row[2:4], (scene.resnet, scene.rass), strict=True):
        axis.set_xlabel(f'{100 * share:.1f} % of pixels correct', fontsize=8.5, color=GREY, labelpad=3)


def _predicted(out: Path, system: System) -> Path:
    return out / 'predictions' / f'{system.stem}-degraded'


def _read(file: Path) -> np.ndarray:
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
