"""Checks and measures on a card, run by tools/gpu_check.sh: correctness first, then training and prediction.

The output file is written after every step, so that the figures of an interrupted run are kept. A step that fails or is
impossible on this machine is recorded with its reason, and the others run nevertheless.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_models import GIB, Check, SkippedError, per_second, relative, tried
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.files.atomic import write_text
from rass_mm.segmentation.deformable import Levels, grid_form

TOOLS = Path(__file__).parent
SHAPES = [(16, 16), (32, 32), (64, 64)]


def machine(check: Check) -> dict[str, Any]:
    """Versions and the card."""
    found = {'torch': torch.__version__, 'cuda': torch.version.cuda, 'cards': torch.cuda.device_count()}
    if check.device.type == 'cuda':
        card = torch.cuda.get_device_properties(0)
        found |= {'card': card.name, 'GiB': card.total_memory / GIB, 'capability': [card.major, card.minor]}
    return found


def operators(check: Check) -> dict[str, float]:
    """Largest differences of mmcv's deformable attention from its form with `grid_sample`, in float64 on the CPU."""
    levels = Levels(SHAPES, check.device)
    torch.manual_seed(0)
    cells = sum(height * width for height, width in SHAPES)
    value, places = torch.randn(2, cells, 8, 32), torch.rand(2, 1000, 8, len(SHAPES), 4, 2)
    weights = torch.rand(2, 1000, 8, len(SHAPES) * 4).softmax(-1).unflatten(-1, (len(SHAPES), 4))
    exact = [part.double().requires_grad_() for part in (value, places, weights)]
    given = [part.detach().to(check.device, torch.float32).requires_grad_() for part in exact]
    expected = multi_scale_deformable_attn_pytorch(exact[0], torch.tensor(SHAPES), *exact[1:])
    if check.device.type == 'cuda':
        found = MultiScaleDeformableAttnFunction.apply(given[0], levels.sizes, levels.starts, *given[1:], 64)
    else:
        found = multi_scale_deformable_attn_pytorch(given[0], levels.sizes, *given[1:])
    for output in (expected, found):
        output.square().sum().backward()
    errors = {
        'forward': relative(found, expected),
        'grid_form': relative(grid_form(given[0], SHAPES, *given[1:]), expected),
    }
    names = ('value', 'locations', 'weights')
    errors |= {name: relative(mine.grad, true.grad) for name, mine, true in zip(names, given, exact, strict=True)}
    assert max(errors.values()) < 1e-3, errors
    return errors


def prediction(check: Check) -> dict[str, Any]:
    """Records of tools/benchmark.py: the released path, and ours in several precisions, in one run per batch."""
    found = {}
    for kind, config in check.configs.items():
        base = f'model.{"backbone." * (kind == "rass")}base={check.base}'
        others = [
            f'{name}: {config} dtype={dtype} {base}' for name, dtype in (('bf16', 'bfloat16'), ('fp16', 'float16'))
        ]
        others += [f'bf16 compiled: {config} dtype=bfloat16 compile=1 {base}'] * (check.device.type == 'cuda')
        others += ['released'] * (kind == 'rass')
        for batch in (1,) if check.options.tiny else (1, 16):
            with tempfile.TemporaryDirectory() as out:
                command = [sys.executable, str(TOOLS / 'benchmark.py'), config, '--batch', str(batch), '--out', out]
                command += [
                    '--size',
                    'x'.join(map(str, check.size)),
                    '--iterations',
                    str(2 if check.options.tiny else 10),
                ]
                command += [part for other in others for part in ('--variant', other)] + ['--cfg-options', base]
                finished(command)
                found[f'{kind}, batch {batch}'] = json.loads((Path(out) / 'benchmark.json').read_text())
    return found


def processes(check: Check) -> dict[str, Any]:
    """Sums of tensors over two processes: with NCCL on two cards, or with gloo on a machine without any."""
    cards = torch.cuda.device_count()
    if cards == 1:
        raise SkippedError('NCCL needs two cards, and there is one')
    with tempfile.TemporaryDirectory() as out:
        file = Path(out) / 'figures.json'
        torch.multiprocessing.spawn(reduce, (f'file://{out}/store', cards > 1, str(file)), nprocs=2)
        return json.loads(file.read_text())


def reduce(rank: int, store: str, nccl: bool, out: str) -> None:
    """Sums 64 MiB over two processes ten times, checks the sum and writes the rate."""
    device = torch.device('cuda', rank) if nccl else torch.device('cpu')
    if nccl:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group('nccl' if nccl else 'gloo', store, rank=rank, world_size=2)
    values = torch.full((2**24,), float(rank + 1), device=device)
    torch.distributed.all_reduce(values)
    assert torch.equal(values, torch.full_like(values, 3.0))
    rate = per_second(lambda: torch.distributed.all_reduce(values), device)
    if rank == 0:
        Path(out).write_text(json.dumps({'backend': 'nccl' if nccl else 'gloo', 'GiB_per_s': rate * 2**26 / GIB}))
    torch.distributed.destroy_process_group()


def finished(command: list[str]) -> None:
    """Runs a command. If it fails, the error contains the end of its output."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)}: {(done.stdout + done.stderr)[-2000:]}')


def failures(value: Any) -> Iterator[str]:
    """Yields the errors in nested results."""
    if isinstance(value, dict):
        yield from [value['error']] if 'error' in value else []
        for part in value.values():
            yield from failures(part)


@contextmanager
def base_folder(options: argparse.Namespace) -> Iterator[Path]:
    """Context manager. Yields the given base folder, or a temporary one with random weights."""
    if options.base:
        yield options.base
        return
    with tempfile.TemporaryDirectory() as folder:
        write_random_base(Path(folder) / 'base', 'scenes-tiny' if options.tiny else 'sd21-base')
        yield Path(folder) / 'base'


def main(argv: list[str]) -> int:
    """Runs all steps; returns 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, help='the file of figures (JSON)')
    parser.add_argument('--base', type=Path, help='base folder (default: a temporary one with random weights)')
    parser.add_argument('--tiny', action='store_true', help='use the tiny configs, e.g. on a CPU')
    parser.add_argument('--iterations', type=int, default=200, help='training iterations (default: 200)')
    parser.add_argument('--batch', type=int, default=2, help='images per training iteration (default: 2)')
    options = parser.parse_args(argv)
    found: dict[str, Any] = {'command': ['tools/gpu_check.sh', *argv]}
    with base_folder(options) as base:
        check = Check(options, base)
        steps = {
            **{'machine': machine, 'operators': operators, 'amp': Check.amp, 'training': Check.training},
            **{'small_card': Check.small_card, 'compiled': Check.compiled, 'graphs': Check.graphs},
            **{'prediction': prediction, 'processes': processes},
        }
        for name, step in steps.items():
            started = time.perf_counter()
            result = tried(step, check)
            found[name] = {**result, 'seconds': round(time.perf_counter() - started, 1)}
            print(name, json.dumps(found[name])[:300], flush=True)
            write_text(options.out, json.dumps(found, indent=2) + '\n')
    errors = list(failures(found))
    print(f'{options.out}: {len(steps)} steps, {len(errors)} errors')
    return bool(errors)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
