"""Exports a model in every format and precision, and compares results, sizes and CPU times on images.

Segmentors are compared by their labels and their mIoU, restorers by grey levels and their PSNR (luma). The reference is
the model in PyTorch in float32. CPU times do not include the import of libraries.

python tools/compare_exports.py CHECKPOINT OUT --images data/scenes/img_lq/val --labels data/scenes/ann_dir/val \
    --calibration data/scenes/img_dir/train --window 128
python tools/compare_exports.py ADAPTER OUT --base BASE --images data/scenes/img_lq/val \
    --clean data/scenes/img_dir/val --calibration data/scenes/img_lq/val --window 128
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import init_default_scope
from PIL import Image
from tabulate import tabulate

from rass_mm.engine.ready import Preparation
from rass_mm.export.exported_restorer import ExportedRestorer
from rass_mm.export.exported_segmentor import ExportedSegmentor
from rass_mm.export.formats import format_module
from rass_mm.export.metadata import BACKENDS, RESTORER, SEGMENTOR, Exported, read_exported
from rass_mm.files.optional import import_optional
from rass_mm.inference.loading import read_segmentor
from rass_mm.inference.modes import SegmentOptions
from rass_mm.inference.restore import RestoreOptions
from rass_mm.inference.restorer import PhotoRestorer, load_restorer
from rass_mm.inference.segmentor import Segmentor
from rass_mm.metrics.iou import mean_iou
from rass_mm.metrics.quality import psnr
from rass_mm_cli.main import main as rass_mm

VARIANTS = [
    *(f'{form}-{dtype}' for form in ('openvino', 'onnx') for dtype in ('float32', 'bfloat16', 'float16', 'int8')),
    *('pt2-float32', 'pt2-bfloat16'),  # float16 is at least 8 times slower on a CPU
]
IGNORED = 255
HEADERS = ('', 'weights', 'MiB', 'export, s', 'difference')


class Segmenting:
    """Comparison of a segmentor by its labels and its mIoU.

    Args:
        given: the parsed command line.
    """

    headers = ('other labels', 'of 10,000', 'mIoU, %')

    def __init__(self, given: argparse.Namespace) -> None:
        init_default_scope('mmseg')
        self.given, self.options = given, []

    def in_torch(self, dtype: str) -> Callable[[Path], np.ndarray]:
        """Loads the segmentor as `rass-mm segment --window` does."""
        source, options = read_segmentor(self.given.model), SegmentOptions(window=self.given.window)
        segmentor = source.build(torch.device('cpu'), Preparation(dtype), options)
        return lambda file: segmentor.predict(file).labels

    def loaded(self, folder: Path, form: str) -> Callable[[Path], np.ndarray]:
        """Loads an exported segmentor as `rass-mm segment --backend` does."""
        exported = read_exported(folder, form, SEGMENTOR) if form in BACKENDS else own_export(folder)
        classes = exported.metadata['classes']
        segmentor = Segmentor(ExportedSegmentor(exported), classes['pipeline'], classes['names'], classes['palette'])
        return lambda file: segmentor.predict(file).labels

    def truth(self, file: Path) -> np.ndarray:
        """Reads the label map of an image."""
        return np.asarray(Image.open(self.given.labels / file.name))

    def scores(self, found: list[np.ndarray], reference: list[np.ndarray], truth: list[np.ndarray]) -> list[str]:
        """Formats the number and the share of labels that differ from the reference, and the mIoU in percent."""
        ours, theirs, real = (np.concatenate([part.ravel() for part in maps]) for maps in (found, reference, truth))
        kept, count = real != IGNORED, int(max(ours.max(), real[real != IGNORED].max())) + 1
        confusion = np.bincount(real[kept].astype(np.int64) * count + ours[kept], minlength=count**2)
        other = int((ours != theirs).sum())
        miou = 100 * mean_iou(confusion.reshape(count, count))
        return [f'{other:,}', f'{1e4 * other / ours.size:.1f}', f'{miou:.2f}']


class Restoring:
    """Comparison of a restorer by its grey levels and its PSNR.

    Args:
        given: the parsed command line.
    """

    headers = ('other values, %', 'at most', 'PSNR, dB')

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.options = given, ['--base', given.base]
        self.tiling = RestoreOptions(window=given.window, overlap=min(RestoreOptions.overlap, given.window // 2))

    def in_torch(self, dtype: str) -> Callable[[Path], np.ndarray]:
        """Loads the restorer as `rass-mm restore --window` does."""
        restorer = load_restorer(self.given.model, self.given.base, device='cpu', dtype=dtype, options=self.tiling)
        return lambda file: eight_bits(restorer.predict(file).pixels)

    def loaded(self, folder: Path, form: str) -> Callable[[Path], np.ndarray]:
        """Loads an exported restorer as `rass-mm restore --backend` does."""
        exported = read_exported(folder, form, RESTORER) if form in BACKENDS else own_export(folder)
        restorer = PhotoRestorer(ExportedRestorer(exported), self.tiling)
        return lambda file: eight_bits(restorer.predict(file).pixels)

    def truth(self, file: Path) -> np.ndarray:
        """Reads the clean image."""
        return np.asarray(Image.open(self.given.clean / file.name).convert('RGB'))

    def scores(self, found: list[np.ndarray], reference: list[np.ndarray], truth: list[np.ndarray]) -> list[str]:
        """Formats the share of values that differ from the reference, their largest difference and the PSNR."""
        differences = [np.abs(a.astype(int) - b) for a, b in zip(found, reference, strict=True)]
        share = np.mean([100 * np.count_nonzero(part) / part.size for part in differences])
        quality = np.mean([psnr(image, clean) for image, clean in zip(found, truth, strict=True)])
        return [f'{share:.2f}', str(max(part.max() for part in differences)), f'{quality:.3f}']


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', type=Path, help='checkpoint of a segmentor, or adapter of a restorer')
    parser.add_argument('out', type=Path, help='folder of the exports and of comparison.json')
    parser.add_argument('--images', type=Path, required=True, help='PNG images')
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument('--labels', type=Path, help='label maps of the same names, for a segmentor')
    truth.add_argument('--clean', type=Path, help='clean images of the same names, for a restorer')
    parser.add_argument('--base', type=Path, help='base folder of a restorer')
    parser.add_argument('--calibration', type=Path, required=True, help='images for int8')
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, default=VARIANTS, help='default: all')
    parser.add_argument('--window', type=int, required=True, help='side of a window in pixels')
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f'{given.out} already exists. Choose another folder, so that every export is timed.')
    if bool(given.clean) != bool(given.base):
        parser.error('--clean and --base are both required for a restorer.')
    rows, versions = compared(given, Restoring(given) if given.clean else Segmenting(given))
    (given.out / 'comparison.json').write_text(json.dumps(rows, indent=1) + '\n')
    print(tabulate(rows, 'keys', 'pipe', disable_numparse=True))
    print(', '.join(f'{name} {number}' for name, number in versions.items()))
    return 0


def compared(given: argparse.Namespace, task: Segmenting | Restoring) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Exports the model in all variants and runs each. Returns the rows of the table, and the versions of libraries."""
    files, headers = sorted(given.images.glob('*.png')), (*HEADERS, *task.headers, 'ms per image')
    truth, reference, rows, versions = [task.truth(file) for file in files], None, [], {}
    for variant in ('PyTorch-float32', 'PyTorch-bfloat16', *given.variants):
        form, dtype = variant.split('-')
        if form == 'PyTorch':
            figures, run = [''] * 3, task.in_torch(dtype)
        else:
            figures, found = exported(given, form, dtype, task.options)
            versions |= found
            run = task.loaded(given.out / variant, form)
        results, cost = predicted(run, files)
        reference = reference or results
        cells = [form, dtype, *figures, *task.scores(results, reference, truth), f'{cost:.0f}']
        rows.append(dict(zip(headers, cells, strict=True)))
        print(rows[-1], flush=True)
    return rows, versions


def exported(given: argparse.Namespace, form: str, dtype: str, options: list[Any]) -> tuple[list[str], dict[str, str]]:
    """Exports the model. Returns its size in MiB, the CPU seconds and the relative difference, and the versions."""
    out, _ = given.out / f'{form}-{dtype}', format_module(form)
    if dtype == 'int8':
        import_optional('rass_mm.export.quantisation', '--calibration')
    start = time.process_time()
    precision = ['--int8', '--calibration', given.calibration] if dtype == 'int8' else ['--dtype', dtype]
    command = ['export', given.model, out, '--format', form, '--window', given.window, *precision, *options]
    if rass_mm([str(word) for word in command]):
        raise SystemExit(1)  # the command has printed the reason
    spent = time.process_time() - start
    about = json.loads((out / 'metadata.json').read_text())
    size = sum(file['bytes'] for file in about['files'].values()) / 2**20
    return [f'{size:.1f}', f'{spent:.0f}', f'{about["parity"]["relative"]:.1e}'], about['versions']


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Rounds RGB in [0, 1] to uint8."""
    return np.rint(255 * pixels).astype(np.uint8)


def own_export(folder: Path) -> Exported:
    """Returns an exported model in the format pt2, which is read only here, where this process has written it."""
    return Exported(folder, json.loads((folder / 'metadata.json').read_text()))


def predicted(run: Callable[[Path], np.ndarray], files: list[Path]) -> tuple[list[np.ndarray], float]:
    """Computes the result for each file. Returns them and the CPU time per image in milliseconds."""
    run(files[0])  # compiles kernels
    start = time.process_time()
    results = [run(file) for file in files]
    return results, 1000 * (time.process_time() - start) / len(files)


if __name__ == '__main__':
    raise SystemExit(main())
