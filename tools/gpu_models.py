"""Training and prediction on a card, measured by tools/gpu_check.py."""

import argparse
import time
import traceback
from collections.abc import Callable
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
from rass_mm.devices import synchronise
from rass_mm.engine.mixed_precision import fitted_precision
from rass_mm.engine.ready import Preparation, prepare, sharing_copy

FULL = {'rass': 'rass/rass_ade20k_lq.py', 'scr': 'scr/scr_ade20k.py'}
TINY = {'rass': 'rass/rass_scenes_tiny_mask2former.py', 'scr': 'scr/scr_scenes_tiny.py'}
GIB = 2**30


class SkippedError(Exception):
    """A step that is impossible on this machine. The message says why."""


class Check:
    """Steps that train a model or predict with it.

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

            samples = [
                DataSample(gt_img=clean, gt_sem_seg=label) for clean, label in zip(images[1], labels, strict=True)
            ]
        return {'inputs': list(images[0]), 'data_samples': samples}

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
            kind: self.steps(kind, self.options.iterations, self.options.batch, self.config(kind))
            for kind in self.configs
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
                    found[name] = tried(self.steps, kind, count, batch, self.config(kind, **{key: checkpointing}))
        found['8-bit optimiser, whole UNet'] = tried(self.eight_bit)
        return found

    def eight_bit(self) -> dict[str, Any]:
        """Trains the whole UNet with Adam in 32 and in 8 bits. For a LoRA, the states are too small to matter."""
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            raise SkippedError('bitsandbytes is not installed') from None
        config = self.config('rass', **{'backbone.train_parameters': 'unet', 'backbone.gradient_checkpointing': True})
        count = max(self.options.iterations // 10, 2)
        found = {
            name: self.steps('rass', count, 1, config, **how) for name, how in (('32', {}), ('8', {'type': AdamW8bit}))
        }
        return {**found, 'pays': found['8']['peak_GiB'] < 0.9 * found['32']['peak_GiB']}

    def graphs(self) -> dict[str, Any]:
        """Prediction of one window by a CUDA graph and in eager mode: speed, and equality of the logits."""
        if self.device.type != 'cuda':
            raise SkippedError('CUDA graphs need a card')
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


def tried(step: Callable[..., Any], *arguments: Any) -> Any:
    """Returns the result of a step, the reason why it was skipped, or its error."""
    try:
        return step(*arguments)
    except SkippedError as reason:
        return {'skipped': str(reason)}
    except Exception as error:  # whatever fails on an unknown card, the other steps run
        traceback.print_exc()
        return {'error': f'{type(error).__name__}: {error}'[:2000]}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
