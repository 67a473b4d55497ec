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
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import rass_mm
from rass_mm.analysis.speed.memory import PeakMemory
from rass_mm.apis import fitted_precision
from rass_mm.devices import synchronise
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.engine.ready import Preparation, prepare, sharing_copy
from rass_mm.files.atomic import write_text
from rass_mm.segmentation.deformable import Levels, grid_form

TOOLS = Path(__file__).parent
FULL = {'rass': 'rass/rass_ade20k_lq.py', 'scr': 'scr/scr_ade20k.py'}
TINY = {'rass': 'rass/rass_scenes_tiny_mask2former.py', 'scr': 'scr/scr_scenes_tiny.py'}
SHAPES = [(16, 16), (32, 32), (64, 64)]
GIB = 2**30


class Skipped(Exception):
    """A step that is impossible on this machine. The message says why."""


class Check:
    """The steps, with what they share.

    Args:
        options: the parsed command line.
        base: base folder of the models.
    """

    def __init__(self, options: argparse.Namespace, base: Path) -> None:
        self.options, self.base = options, base
        self.configs = TINY if options.tiny else FULL
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.size = (96, 96) if options.tiny else (512, 512)

    def config(self, kind: str, **changes: Any) -> Config:
        """Returns the config of a kind of model ('rass' or 'scr') with this base and changed model settings."""
        config = Config.fromfile(str(rass_mm.config_path(self.configs[kind])))
        key = 'model.backbone.base' if kind == 'rass' else 'model.base'
        config.merge_from_dict({key: str(self.base), **{f'model.{name}': value for name, value in changes.items()}})
        if kind == 'scr':
            config.model.losses.perceptual = None  # its weights may be missing
        return config

    def model(self, config: Config) -> torch.nn.Module:
        """Returns the seeded model of a config on the device."""
        import rass_mm.restoration  # noqa: F401 - registers the restorer

        init_default_scope('mmseg')
        torch.manual_seed(0)
        return MODELS.build(config.model).to(self.device)

    def batch(self, kind: str, count: int) -> dict[str, Any]:
        """Returns random images with blocks of labels, as from a data loader."""
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (2, count, 3, *self.size), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 12, (count, 1, *(side // 8 for side in self.size)), generator=generator)
        labels = [PixelData(data=label) for label in labels.repeat_interleave(8, -1).repeat_interleave(8, -2)]
        if kind == 'rass':
            meta = {'img_shape': self.size, 'ori_shape': self.size}
            samples = [SegDataSample(gt_sem_seg=label, metainfo=meta) for label in labels]
        else:
            from mmagic.structures import DataSample

            samples = [DataSample(gt_img=clean, gt_sem_seg=label) for clean, label in zip(images[1], labels, strict=True)]
        return {'inputs': list(images[0]), 'data_samples': samples}

    def machine(self) -> dict[str, Any]:
        """Versions and the card."""
        found = {'torch': torch.__version__, 'cuda': torch.version.cuda, 'cards': torch.cuda.device_count()}
        if self.device.type == 'cuda':
            card = torch.cuda.get_device_properties(0)
            found |= {'card': card.name, 'GiB': card.total_memory / GIB, 'capability': [card.major, card.minor]}
        return found

    def operators(self) -> dict[str, float]:
        """Largest differences of mmcv's deformable attention from its form with `grid_sample`, in float64 on the CPU."""
        from mmcv.ops.multi_scale_deform_attn import (
            MultiScaleDeformableAttnFunction,
            multi_scale_deformable_attn_pytorch,
        )

        levels = Levels(SHAPES, self.device)
        torch.manual_seed(0)
        cells = sum(height * width for height, width in SHAPES)
        value, places = torch.randn(2, cells, 8, 32), torch.rand(2, 1000, 8, len(SHAPES), 4, 2)
        weights = torch.rand(2, 1000, 8, len(SHAPES) * 4).softmax(-1).unflatten(-1, (len(SHAPES), 4))
        exact = [part.double().requires_grad_() for part in (value, places, weights)]
        given = [part.detach().to(self.device, torch.float32).requires_grad_() for part in exact]
        expected = multi_scale_deformable_attn_pytorch(exact[0], torch.tensor(SHAPES), *exact[1:])
        if self.device.type == 'cuda':
            found = MultiScaleDeformableAttnFunction.apply(given[0], levels.sizes, levels.starts, *given[1:], 64)
        else:
            found = multi_scale_deformable_attn_pytorch(given[0], levels.sizes, *given[1:])
        for output in (expected, found):
            output.square().sum().backward()
        errors = {'forward': relative(found, expected), 'grid_form': relative(grid_form(given[0], SHAPES, *given[1:]), expected)}
        names = ('value', 'locations', 'weights')
        errors |= {name: relative(mine.grad, true.grad) for name, mine, true in zip(names, given, exact, strict=True)}
        assert max(errors.values()) < 1e-3, errors
        return errors

    def amp(self) -> dict[str, Any]:
        """Losses of a step in float32 and in mixed precision, and the share of parameters that it changes."""
        found = {}
        for kind in self.configs:
            config = self.config(kind)
            for amp in (False, True):
                model, optimizer = self.trainable(config, amp)
                before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
                torch.manual_seed(0)
                log = model.train_step(self.batch(kind, 1), optimizer)
                after = dict(model.named_parameters())
                changed = sum(not torch.equal(after[name], value) for name, value in before.items()) / len(before)
                found[f'{kind}, {"mixed" if amp else "float32"}'] = {'loss': log['loss'].item(), 'changed': changed}
            pair = [found[f'{kind}, {name}']['loss'] for name in ('float32', 'mixed')]
            assert abs(pair[1] - pair[0]) < 0.1 * abs(pair[0]), found
        return found

    def trainable(self, config: Config, amp: bool = True, **optimizer: Any) -> tuple[torch.nn.Module, Any]:
        """Returns a model in training mode, and its optimiser wrappers in mixed precision or in float32."""
        model = self.model(config).train()
        wrapper = fitted_precision(dict(config.optim_wrapper), amp)
        parts = [wrapper] if 'optimizer' in wrapper else [part for part in wrapper.values() if isinstance(part, dict)]
        for part in parts:
            part['optimizer'] = {**part['optimizer'], **optimizer}
            if not amp:
                part['type'] = 'OptimWrapper'
                for key in ('dtype', 'loss_scale'):
                    part.pop(key, None)
        return model, build_optim_wrapper(model, wrapper)

    def steps(self, kind: str, count: int, batch: int, config: Config, **optimizer: Any) -> dict[str, Any]:
        """Runs training steps. Returns the speed without the first tenth, the peak memory and the losses."""
        model, wrapper = self.trainable(config, **optimizer)
        warm, losses, started = max(count // 10, 1), [], 0.0
        memory = PeakMemory(self.device)
        with memory:
            for number in range(count):
                if number == warm:
                    synchronise(self.device)
                    started = time.perf_counter()
                losses.append(model.train_step(self.batch(kind, batch), wrapper)['loss'].detach())
            synchronise(self.device)
        seconds = time.perf_counter() - started
        values = torch.stack(losses).tolist()
        assert torch.isfinite(torch.tensor(values)).all(), values
        peak = {'peak_GiB': None if memory.peak is None else memory.peak / GIB, 'batch': batch, 'iterations': count}
        return {'iterations_per_s': (count - warm) / seconds, **peak, 'loss': [values[0], values[-1]]}

    def training(self) -> dict[str, Any]:
        """Training of RASS and SCR for some hundred iterations."""
        return {
            kind: self.steps(kind, self.options.iterations, self.options.batch, self.config(kind)) for kind in self.configs
        }

    def small_card(self) -> dict[str, Any]:
        """Memory and speed of training with what saves memory: checkpointing, and an 8-bit optimiser.

        The encoder has no gradients in any of them. An 8-bit optimiser saves 6 of 8 bytes per trained parameter.
        """
        found, count = {}, max(self.options.iterations // 10, 2)
        for kind in self.configs:
            key = 'backbone.gradient_checkpointing' if kind == 'rass' else 'gradient_checkpointing'
            for checkpointing in (False, True):
                for batch in (1, 2, 4):
                    name = f'{kind}, batch {batch}{", checkpointing" * checkpointing}'
                    found[name] = tried(lambda: self.steps(kind, count, batch, self.config(kind, **{key: checkpointing})))  # noqa: B023
        found['8-bit optimiser, whole UNet'] = tried(self.eight_bit)
        return found

    def eight_bit(self) -> dict[str, Any]:
        """Trains the whole UNet with Adam in 32 and in 8 bits. For a LoRA, the states are too small to matter."""
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            raise Skipped('bitsandbytes is not installed') from None
        config = self.config('rass', **{'backbone.train_parameters': 'unet', 'backbone.gradient_checkpointing': True})
        count = max(self.options.iterations // 10, 2)
        found = {name: self.steps('rass', count, 1, config, **how) for name, how in (('32', {}), ('8', {'type': AdamW8bit}))}
        return {**found, 'pays': found['8']['peak_GiB'] < 0.9 * found['32']['peak_GiB']}

    def graphs(self) -> dict[str, Any]:
        """Prediction of one window by a CUDA graph and in eager mode: speed, and equality of the logits."""
        if self.device.type != 'cuda':
            raise Skipped('CUDA graphs need a card')
        model = prepare(self.model(self.config('rass')), Preparation('bfloat16'))
        images = torch.randn(1, 3, *self.size, device=self.device)
        metas = [{'img_shape': self.size, 'pad_shape': self.size}]
        with torch.no_grad():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    expected = model.encode_decode(images, metas)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                found = model.encode_decode(images, metas)
            graph.replay()
            error = relative(found, expected)
            eager = per_second(lambda: model.encode_decode(images, metas), self.device)
        assert error < 1e-2, error
        return {'difference': error, 'eager_per_s': eager, 'graph_per_s': per_second(graph.replay, self.device)}

    def compiled(self) -> dict[str, Any]:
        """Prediction of one window, compiled and in eager mode: speed, and difference of the logits."""
        plain = self.model(self.config('rass')).eval()
        images = torch.randn(1, 3, *self.size, device=self.device)
        metas = [{'img_shape': self.size, 'pad_shape': self.size}]
        found = {}
        with torch.no_grad():
            for compile in (False, True):
                model = prepare(sharing_copy(plain), Preparation(compile=compile, pack=False))
                logits = model.encode_decode(images, metas).clone()
                found[compile] = (logits, per_second(lambda: model.encode_decode(images, metas), self.device))  # noqa: B023
        error = relative(found[True][0], found[False][0])
        assert error < 1e-2, error
        return {'difference': error, 'eager_per_s': found[False][1], 'compiled_per_s': found[True][1]}

    def prediction(self) -> dict[str, Any]:
        """Records of tools/benchmark.py: the released path, and ours in several precisions, in one run per batch."""
        found = {}
        for kind, config in self.configs.items():
            base = f'model.{"backbone." * (kind == "rass")}base={self.base}'
            others = [f'{name}: {config} dtype={dtype} {base}' for name, dtype in (('bf16', 'bfloat16'), ('fp16', 'float16'))]
            others += [f'bf16 compiled: {config} dtype=bfloat16 compile=1 {base}'] * (self.device.type == 'cuda')
            others += ['released'] * (kind == 'rass')
            for batch in (1,) if self.options.tiny else (1, 16):
                with tempfile.TemporaryDirectory() as out:
                    command = [sys.executable, str(TOOLS / 'benchmark.py'), config, '--batch', str(batch), '--out', out]
                    command += ['--size', 'x'.join(map(str, self.size)), '--iterations', str(2 if self.options.tiny else 10)]
                    command += [part for other in others for part in ('--variant', other)] + ['--cfg-options', base]
                    finished(command)
                    found[f'{kind}, batch {batch}'] = json.loads((Path(out) / 'benchmark.json').read_text())
        return found

    def processes(self) -> dict[str, Any]:
        """Sums of tensors over two processes: with NCCL on two cards, or with gloo on a machine without any."""
        cards = torch.cuda.device_count()
        if cards == 1:
            raise Skipped('NCCL needs two cards, and there is one')
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


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the largest difference relative to the largest expected value."""
    found, expected = (part.detach().double().cpu() for part in (found, expected))
    return ((found - expected).abs().max() / expected.abs().max()).item()


def per_second(run: Callable[[], Any], device: torch.device, count: int = 10) -> float:
    """Returns the number of calls per second, after two calls that are not counted."""
    for _ in range(2):
        run()
    synchronise(device)
    started = time.perf_counter()
    for _ in range(count):
        run()
    synchronise(device)
    return count / (time.perf_counter() - started)


def finished(command: list[str]) -> None:
    """Runs a command. If it fails, the error contains the end of its output."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)}: {(done.stdout + done.stderr)[-2000:]}')


def tried(step: Callable[[], Any]) -> Any:
    """Returns the result of a step, the reason why it was skipped, or its error."""
    try:
        return step()
    except Skipped as reason:
        return {'skipped': str(reason)}
    except Exception as error:  # whatever fails on an unknown card, the other steps run
        traceback.print_exc()
        return {'error': f'{type(error).__name__}: {error}'[:2000]}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


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
    names = ('machine', 'operators', 'amp', 'training', 'small_card', 'compiled', 'graphs', 'prediction', 'processes')
    found: dict[str, Any] = {'command': ['tools/gpu_check.sh', *argv]}
    with base_folder(options) as base:
        check = Check(options, base)
        for name in names:
            started = time.perf_counter()
            result = tried(getattr(check, name))
            found[name] = {**result, 'seconds': round(time.perf_counter() - started, 1)}
            print(name, json.dumps(found[name])[:300], flush=True)
            write_text(options.out, json.dumps(found, indent=2) + '\n')
    errors = list(failures(found))
    print(f'{options.out}: {len(names)} steps, {len(errors)} errors')
    return bool(errors)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
