"""Results table of the demo: scores, costs and limitations."""

from pathlib import Path

import cv2
import numpy as np
from typing_extensions import TypedDict

from rass_mm.analysis.report.tables import markdown_table
from rass_mm.apis import RESULT
from rass_mm.datasets.scenes import SCENE_CLASSES
from rass_mm.demo.base.shipped import shipped_record
from rass_mm.demo.costs import Costs
from rass_mm.demo.settings import DemoSettings
from rass_mm.demo.steps import (
    BASELINE,
    LONGER,
    R2S,
    RASS,
    RASS_SCR,
    SCR,
    SPLITS,
    SYSTEMS,
    System,
    max_iters,
    scenes_folder,
)
from rass_mm.files.schemas import read_json
from rass_mm.metrics.iou import mean_iou
from rass_mm.protocol import copy_version

TRAINED = {BASELINE: (BASELINE,), LONGER: (LONGER,), R2S: (SCR, BASELINE), RASS: (RASS,), RASS_SCR: (SCR, RASS_SCR)}
"""Maps each system to the training runs that it requires, in addition to the training of the base."""


def demo_table(out: Path, settings: DemoSettings) -> str:
    """Returns the results as Markdown: mIoU and cost of each system, scores of the restorer and cost of the base."""
    scenes = scenes_folder(out)
    protocol = (
        f'mIoU (%) over all pixels of {settings.val} validation scenes, {len(SCENE_CLASSES)} classes, degraded by '
        f'recipe version {copy_version(scenes / SPLITS["degraded"][0])}; trainings of seed {settings.seed}, batch 8; '
        'measured by `rass-mm demo`.'
    )
    header = ['system', 'steps', 'CPU seconds', *SPLITS]
    rows = [['majority class', '', '', *[f'{100 * majority_miou(scenes):.2f}'] * len(SPLITS)]]
    rows += [_row(out, settings, system) for system in SYSTEMS]
    return '\n'.join(
        [f'{protocol}\n\n{markdown_table(header, rows)}', _costs_note(out, settings), _restoration(out, settings)]
    )


def _row(out: Path, settings: DemoSettings, system: System) -> list[str]:
    costs = Costs(out)
    steps = [str(max_iters(settings, part)) for part in TRAINED[system]]
    seconds = [f'{">" * costs.resumed(part.stem)}{costs.seconds(part.stem)}' for part in TRAINED[system]]
    scores = [f'{read_metrics(out, f"{system.stem}-{split}")["mIoU"]:.2f}' for split in SPLITS]
    return [system.title, ' + '.join(steps), ' + '.join(seconds), *scores]


def _costs_note(out: Path, settings: DemoSettings) -> str:
    """Returns notes on the training and cost of the base and on the limitations of the table."""
    record, costs = shipped_record(), Costs(out)
    rass = costs.seconds(SCR.stem) + costs.seconds(RASS_SCR.stem)
    commands = ''.join(f'    {command}\n' for command in record['commands'])
    return (
        f'SCR and RASS use the small base that comes with the package (weights {record["weights"]}), trained once in '
        f'{record["seconds"]} CPU seconds ({record["seconds"] / 60:.0f} minutes of one core), seed {record["seed"]}, '
        f'on drawn scenes with:\n\n{commands}\n'
        'The ResNet starts from random weights. Apart from the longer ResNet, the segmentors have equal steps, not '
        f'equal cost: RASS with SCR took {rass} CPU seconds, {rass + record["seconds"]} with the base, the ResNet '
        f'{costs.seconds(BASELINE.stem)}, the longer ResNet {costs.seconds(LONGER.stem)}. The table does not show a '
        'pretrained baseline, other data or the spread over seeds; docs/demo.md has three seeds and a ResNet that took '
        'as long as the base, SCR and RASS together (--longer-steps 20000).\n'
    )


def _restoration(out: Path, settings: DemoSettings) -> str:
    restored, ceiling = (read_metrics(out, f'{SCR.stem}-{mode}') for mode in ('restore', 'ceiling'))
    figures = [
        ['degraded', f'{restored["input_PSNR"]:.2f}', f'{restored["input_SSIM"]:.3f}'],
        ['restored by SCR', f'{restored["PSNR"]:.2f}', f'{restored["SSIM"]:.3f}'],
        ['ceiling: clean through the autoencoder', f'{ceiling["PSNR"]:.2f}', f'{ceiling["SSIM"]:.3f}'],
    ]
    return (
        f'The degraded scenes restored by SCR ({settings.restorer_steps} steps):\n\n'
        f'{markdown_table(["image", "PSNR (dB)", "SSIM"], figures)}\n'
        f"Share of the class words' attention on their masks: {restored['attention_ratio']:.3f} "
        f'(by chance {restored["attention_chance"]:.3f}).'
    )


class Metrics(TypedDict):
    """Record of a test, as far as the demo reads it."""

    metrics: dict[str, float]


def read_metrics(out: Path, name: str) -> dict[str, float]:
    """Reads the metrics of one test of the demo."""
    return read_json(out / 'tests' / name / RESULT, Metrics, 'Delete the file; the test is run again.')['metrics']


def majority_miou(scenes: Path) -> float:
    """Returns the mean IoU, in [0, 1], of predicting the most frequent training class for all validation pixels."""

    def counts(split: str) -> np.ndarray:
        labels = (
            cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in sorted((scenes / 'ann_dir' / split).glob('*.png'))
        )
        return sum(np.bincount(label.ravel(), minlength=256)[: len(SCENE_CLASSES)] for label in labels)

    majority, truth = int(counts('train').argmax()), counts('val')
    confusion = np.zeros((len(truth), len(truth)), np.int64)
    confusion[:, majority] = truth
    return mean_iou(confusion)
