"""Runs a job of many small images in shards, and predicts larger jobs from two smaller ones: `docs/scale.md`.

JOB='rass-mm restore {images} {out} --adapter EXPORTED --backend openvino'
python tools/simulate_scale.py small --images 5000 --command "$JOB"
python tools/simulate_scale.py large --images 20000 --command "$JOB"
python tools/simulate_scale.py huge --images 80000 --command "$JOB" --points small large

Each run measures its shards, `jobs status`, `jobs merge`, and the same command after the merge, which finds nothing to
do. With --points, the values on the line through two earlier runs stand beside the measured ones. No large library is
imported, because the peak memory of a process begins with that of its parent.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tabulate import tabulate

PER_FOLDER = 1000
UNITS = {'cpu': 'CPU s', 'wall': 's', 'memory': 'MiB', 'bytes': 'MB'}
Point = dict[str, Any]


def main() -> int:
    """Runs the job, writes OUT/point.json and prints the quantities; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, metavar='OUT', help='new folder for the images and the outputs')
    parser.add_argument('--images', type=int, required=True, help='number of images')
    parser.add_argument('--side', type=int, default=48, help='side of the images in pixels (default: 48)')
    parser.add_argument('--shards', type=int, default=2, help='number of shards (default: 2)')
    parser.add_argument('--at-once', type=int, default=2, help='shards that run at the same time (default: 2)')
    parser.add_argument('--command', required=True, help='command of the job, with {images} and {out}')
    parser.add_argument('--points', type=Path, nargs=2, help='folders of two smaller runs to predict this one from')
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    point = measure(arguments)
    (arguments.out / 'point.json').write_text(json.dumps(point, indent=1) + '\n')
    earlier = [json.loads((folder / 'point.json').read_text()) for folder in arguments.points or ()]
    print(report(point, earlier))
    return 0


def measure(arguments: argparse.Namespace) -> Point:
    """Returns the measured quantities of a job: CPU seconds, largest resident memory in MiB, and sizes in MB."""
    images, out = arguments.out / 'images', arguments.out / 'outputs'
    draw_images(images, arguments.images, arguments.side)
    command = [word.format(images=images, out=out) for word in shlex.split(arguments.command)]
    begin = time.monotonic()
    shards = run_shards(command, arguments.shards, arguments.at_once)
    quantities = {'shards: wall': time.monotonic() - begin}
    quantities['shards: cpu'] = sum(shard['cpu'] for shard in shards)
    quantities['largest shard: memory'] = max(shard['memory'] for shard in shards)
    quantities['manifests: bytes'] = sum(path.stat().st_size for path in out.glob('manifest.*.jsonl')) / 1e6
    for name, words in (
        ('jobs status', ['rass-mm', 'jobs', 'status', str(out)]),
        ('jobs merge', ['rass-mm', 'jobs', 'merge', str(out)]),
        ('again, nothing to do', command),
    ):
        taken = finished(started(words))
        quantities |= {f'{name}: cpu': taken['cpu'], f'{name}: memory': taken['memory']}
    made = sum(1 for path in out.rglob('*') if path.suffix == '.png')
    lines = sum(1 for _ in (out / 'manifest.jsonl').open()) - 1
    return {'images': arguments.images, 'outputs': made, 'recorded': lines, 'quantities': quantities}


def draw_images(folder: Path, images: int, side: int) -> None:
    """Writes smooth random PNG files, 1,000 in each subfolder, seed 0."""
    random = np.random.default_rng(0)
    for number in range(images):
        parent = folder / f'{number // PER_FOLDER:05d}'
        parent.mkdir(parents=True, exist_ok=True)
        colors = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        colors.resize((side, side), Image.Resampling.BICUBIC).save(parent / f'{number:08d}.png')


def run_shards(command: list[str], shards: int, at_once: int) -> list[dict[str, float]]:
    """Runs all shards of a command, some at the same time; returns what each has taken."""
    waiting, running, taken = list(range(shards)), [], []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(started([*command, '--shards', str(shards), '--shard', str(waiting.pop(0))]))
        taken.append(finished(running.pop(0)))
    return taken


def started(command: list[str]) -> subprocess.Popen:
    """Starts a command with one thread."""
    threads = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1'}
    return subprocess.Popen(command, env={**os.environ, **threads}, stdout=subprocess.DEVNULL, stderr=sys.stderr)


def finished(process: subprocess.Popen) -> dict[str, float]:
    """Waits for a command; returns its CPU seconds and its largest resident memory in MiB.

    Raises:
        SystemExit: it failed.
    """
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f'{shlex.join(process.args)} failed with exit status {process.returncode}.')
    return {'cpu': usage.ru_utime + usage.ru_stime, 'memory': usage.ru_maxrss / 1024}


def report(point: Point, earlier: list[Point]) -> str:
    """Returns a table of the quantities; with two earlier points, beside those on the line through them."""
    rows = []
    for name, value in point['quantities'].items():
        row = [name, UNITS[name.split(': ')[-1]], *(other['quantities'][name] for other in earlier), value]
        if earlier:
            expected = predicted(earlier, name, point['images'])
            row += [expected, f'{100 * (value / expected - 1):+.1f} %']
        rows.append(row)
    counts = [f'{other["images"]:,}' for other in [*earlier, point]]
    headers = ['', 'unit', *counts, *(['predicted', 'measured to predicted'] if earlier else [])]
    summary = f'{point["images"]:,} images, {point["outputs"]:,} outputs, {point["recorded"]:,} recorded'
    return f'{summary}\n\n{tabulate(rows, headers, tablefmt="pipe", floatfmt=".4g")}'


def predicted(earlier: list[Point], name: str, images: int) -> float:
    """Returns the value of a quantity for a number of images on the line through two points."""
    first, second = ((other['images'], other['quantities'][name]) for other in earlier)
    slope = (second[1] - first[1]) / (second[0] - first[0])
    return second[1] + slope * (images - second[0])


if __name__ == '__main__':
    sys.exit(main())
