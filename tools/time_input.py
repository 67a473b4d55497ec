"""Times the training pipeline of a config by step on drawn scenes, saved as JPEG, on one CPU thread.

python tools/time_input.py rass/rass_ade20k_lq.py --samples 200
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import TRANSFORMS

from rass_mm.analysis.report.tables import markdown_table
from rass_mm.cli.options import count, number, seed
from rass_mm.config import load_config
from rass_mm.degradation import applying
from rass_mm.demo.scenes.generator import make_scene
from rass_mm.engine.seeding import Draw, mixed_seed

HEIGHT, WIDTH = 512, 683
INSIDE = 'in LQDegradation: '
Seconds = Counter[str]


def main() -> int:
    """Prints a table with the time of each step and the number of workers that feed a GPU; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='file or name of a shipped config')
    parser.add_argument('--samples', type=count, default=200, help='number of samples (default: 200)')
    parser.add_argument('--images', type=count, default=8, help='number of drawn images (default: 8)')
    parser.add_argument('--seed', type=seed, default=0, help='seed of images and draws (default: 0)')
    parser.add_argument('--batch', type=count, default=16, help='images that the GPU takes in a step (default: 16)')
    parser.add_argument('--step', type=number(0, 1e6, above=True), default=0.3, help='seconds of a step (default: 0.3)')
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    steps = load_config(arguments.config).train_dataloader.dataset.pipeline
    transforms = [(step.type, TRANSFORMS.build(step)) for step in steps]
    with tempfile.TemporaryDirectory() as folder:
        samples = write_samples(Path(folder), arguments.images, arguments.seed)
        load_all(transforms, samples, len(samples), arguments.seed)  # warm-up
        taken = load_all(transforms, samples, arguments.samples, arguments.seed)
    print(report(taken, arguments.batch, arguments.step), end='')
    return 0


def write_samples(folder: Path, images: int, seed: int) -> list[dict[str, Any]]:
    """Writes drawn scenes as JPEG of quality 95 and their labels as PNG. Returns the inputs of the first transform."""
    samples = []
    for index in range(images):
        image, label = make_scene(seed + index, 384, 512)
        paths = {'img_path': str(folder / f'{index}.jpg'), 'seg_map_path': str(folder / f'{index}.png')}
        larger = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(paths['img_path'], larger, [cv2.IMWRITE_JPEG_QUALITY, 95])
        cv2.imwrite(paths['seg_map_path'], cv2.resize(label, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST))
        samples.append({**paths, 'label_map': None, 'reduce_zero_label': False})
    return samples


def load_all(transforms: list[tuple[str, Any]], samples: list[dict[str, Any]], number: int, seed: int) -> list[Seconds]:
    """Runs the pipeline for a number of draws. Returns the CPU seconds of each draw by step."""
    taken = []
    for draw in range(number):
        index = draw % len(samples)
        results = {**samples[index], 'seg_fields': [], 'sample_idx': Draw(index, mixed_seed(seed, draw, 1))}
        seconds: Seconds = Counter()
        for name, transform in transforms:
            operations = dict(applying.OPERATIONS)
            applying.OPERATIONS.update({op: timing(run, seconds) for op, run in operations.items()})
            start = time.process_time()
            results = transform(results)
            seconds[name] += time.process_time() - start
            applying.OPERATIONS.update(operations)
        taken.append(seconds)
    return taken


def timing(run: Callable, seconds: Seconds) -> Callable:
    """Wraps an operation of the degradation so that its time is added to `seconds`."""

    def timed(image: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
        start = time.process_time()
        result = run(image, step)
        detail = step.get('kernel') or step.get('kind')
        seconds[INSIDE + ' '.join(filter(None, (step['op'], detail)))] += time.process_time() - start
        return result

    return timed


def report(taken: list[Seconds], batch: int, step: float) -> str:
    """Formats the milliseconds of each step per sample, and the number of workers that feed a GPU."""
    names = dict.fromkeys(name for seconds in taken for name in seconds if not name.startswith(INSIDE))
    inside = sorted({name for seconds in taken for name in seconds} - set(names))
    rows = [(name, f'{1000 * mean(seconds[name] for seconds in taken):.2f}') for name in (*names, *inside)]
    totals = [1000 * sum(seconds[name] for name in names) for seconds in taken]
    spread = f'median {median(totals):.1f}, 95th percentile {quantiles(totals, n=20)[-1]:.1f}'
    workers = mean(totals) * batch / (1000 * step)
    return (
        markdown_table(['step', 'CPU ms per sample'], [*rows, ('all', f'{mean(totals):.1f}')])
        + f'\n{len(taken)} samples of {WIDTH}x{HEIGHT} pixels, one thread: {spread} ms. {batch} images in {step:g} s '
        f'need {workers:.1f} of these cores (of {os.cpu_count()} here).\n'
    )


if __name__ == '__main__':
    sys.exit(main())
