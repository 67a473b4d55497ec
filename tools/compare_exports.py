"""Exports a segmentor in every format and precision, and compares labels, mIoU, sizes and CPU times on labelled images.

The reference is the model in PyTorch in float32. CPU times do not include the import of libraries.


python tools/compare_exports.py CHECKPOINT OUT --images data/scenes/img_lq/val --labels data/scenes/ann_dir/val \
    --calibration data/scenes/img_dir/train --window 128
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import init_default_scope
from PIL import Image
from tabulate import tabulate

from rass_mm.engine.ready import Preparation
from rass_mm.export.exported_segmentor import ExportedSegmentor
from rass_mm.export.formats import format_module, import_optional
from rass_mm.export.metadata import SEGMENTOR, Exported, read_exported
from rass_mm.inference.loading import read_segmentor
from rass_mm.inference.modes import SegmentOptions
from rass_mm.inference.segmentor import Segmentor
from rass_mm.metrics.iou import mean_iou
from rass_mm_cli.main import main as rass_mm

VARIANTS = [
    *(f'{form}-{dtype}' for form in ('openvino', 'onnx') for dtype in ('float32', 'bfloat16', 'float16', 'int8')),
    *('pt2-float32', 'pt2-bfloat16'),  # float16 is at least 8 times slower on a CPU
]
IGNORED = 255
HEADERS = ('', 'weights', 'MiB', 'export, s', 'difference', 'other labels', 'of 10,000', 'mIoU, %', 'ms per image')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('out', type=Path, help='folder of the exports and of comparison.json')
    parser.add_argument('--images', type=Path, required=True, help='PNG images')
    parser.add_argument('--labels', type=Path, required=True, help='label maps of the same names')
    parser.add_argument('--calibration', type=Path, required=True, help='images for int8')
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=VARIANTS, help='default: all')
    parser.add_argument('--window', type=int, required=True, help='side of a window in pixels')
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f'{given.out} already exists. Choose another folder, so that every export is timed.')
    init_default_scope('mmseg')
    files = sorted(given.images.glob('*.png'))
    truth = [np.asarray(Image.open(given.labels / file.name)) for file in files]
    rows, reference = [], None
    for dtype in ('float32', 'bfloat16'):
        labels, cost = predicted(in_torch(given.checkpoint, dtype, given.window), files)
        reference = labels if reference is None else reference
        rows.append({'format': 'PyTorch', 'dtype': dtype, 'ms': cost, **scores(labels, reference, truth)})
        print(rows[-1], flush=True)
    for variant in given.variants:
        form, dtype = variant.split('-')
        row = exported(given, form, dtype)
        labels, cost = predicted(loaded(read_exported(given.out / variant, form, SEGMENTOR)), files)
        rows.append({**row, 'ms': cost, **scores(labels, reference, truth)})
        print(rows[-1], flush=True)
    (given.out / 'comparison.json').write_text(json.dumps(rows, indent=1) + '\n')
    print(tabulate([listed(row) for row in rows], HEADERS, 'pipe', disable_numparse=True))
    versions = {name: number for row in rows for name, number in row.get('versions', {}).items()}
    print(', '.join(f'{name} {number}' for name, number in versions.items()))
    return 0


def in_torch(checkpoint: Path, dtype: str, window: int) -> Segmentor:
    """Loads the segmentor as `rass-mm segment --window` does."""
    source = read_segmentor(checkpoint)
    return source.build(torch.device('cpu'), Preparation(dtype), SegmentOptions(window=window))


def exported(given: argparse.Namespace, form: str, dtype: str) -> dict:
    """Exports the segmentor. Returns the figures of the export."""
    out, _ = given.out / f'{form}-{dtype}', format_module(form)
    if dtype == 'int8':
        import_optional('rass_mm.export.quantisation', '--calibration')
    start = time.process_time()
    options = ['--int8', '--calibration', given.calibration] if dtype == 'int8' else ['--dtype', dtype]
    command = ['export', given.checkpoint, out, '--format', form, '--window', given.window, *options]
    if rass_mm([str(word) for word in command]):
        raise SystemExit(1)  # the command has printed the reason
    about = json.loads((out / 'metadata.json').read_text())
    size = sum(file['bytes'] for file in about['files'].values()) / 2**20
    figures = {'mib': size, 'seconds': time.process_time() - start, 'relative': about['parity']['relative']}
    return {'format': form, 'dtype': dtype, **figures, 'versions': about['versions']}


def loaded(exported: Exported) -> Segmentor:
    """Loads an exported segmentor as `rass-mm segment --backend` does."""
    classes = exported.metadata['classes']
    return Segmentor(ExportedSegmentor(exported), classes['pipeline'], classes['names'], classes['palette'])


def predicted(segmentor: Segmentor, files: list[Path]) -> tuple[list[np.ndarray], float]:
    """Computes the label map of each file. Returns them and the CPU time per image in milliseconds."""
    segmentor.predict(files[0])  # compiles kernels
    start = time.process_time()
    labels = [segmentor.predict(file).labels for file in files]
    return labels, 1000 * (time.process_time() - start) / len(files)


def scores(labels: list[np.ndarray], reference: list[np.ndarray], truth: list[np.ndarray]) -> dict[str, float]:
    """Computes the number and the share of labels that differ from the reference, and the mIoU in percent."""
    ours, theirs, real = (np.concatenate([part.ravel() for part in maps]) for maps in (labels, reference, truth))
    kept, count = real != IGNORED, int(max(ours.max(), real[real != IGNORED].max())) + 1
    confusion = np.bincount(real[kept].astype(np.int64) * count + ours[kept], minlength=count**2)
    other = int((ours != theirs).sum())
    return {'other': other, 'share': other / ours.size, 'miou': 100 * mean_iou(confusion.reshape(count, count))}


def listed(row: dict) -> list[str]:
    """Formats a row of the table."""
    formats: dict[str, Callable] = {'mib': '{:.1f}'.format, 'seconds': '{:.0f}'.format, 'relative': '{:.1e}'.format}
    figures = [formats[name](row[name]) if name in row else '' for name in formats]
    return [
        row['format'],
        row['dtype'],
        *figures,
        f'{row["other"]:,}',
        f'{1e4 * row["share"]:.1f}',
        f'{row["miou"]:.2f}',
        f'{row["ms"]:.0f}',
    ]


if __name__ == '__main__':
    raise SystemExit(main())
