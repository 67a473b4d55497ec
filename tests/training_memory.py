"""Memory of training steps at full size, computed without a card: python tests/training_memory.py [--batch 1 2 16]

A training step of each shipped full-size config runs on fake CUDA tensors in bfloat16 mixed precision, with crops of
512x512. Every tensor on the card is counted from its creation until it is freed, like in
`torch.cuda.max_memory_allocated`. Workspaces of kernels, the CUDA context and fragmentation are not counted.
"""

import argparse
import sys
import tempfile
import weakref
from pathlib import Path

import torch
from cuda_paths import restoration_batch, segmentation_batch
from fake_cuda import FakeCuda
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

import rass_mm
import rass_mm.restoration  # noqa: F401 - registers the restorer
from rass_mm.analysis.report.tables import markdown_table
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.engine.mixed_precision import fitted_precision

RASS, SCR = 'rass/rass_ade20k_lq.py', 'scr/scr_ade20k.py'
BATCHES = {RASS: segmentation_batch, SCR: restoration_batch}
GIB = 2**30
KNOWN = 2048
"""Largest number of elements with known values: which queries of a batch of 16 have an object is not invented."""


class CountedCuda(FakeCuda):
    """Fake card that counts the bytes of the tensors on it. `live` is the current number, and `peak` the largest."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._sizes = {}

    def _patches(self):
        return {**super()._patches(), 'fake_cuda.KNOWN': KNOWN}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, FakeTensor) and leaf.device.type == 'cuda':
                self._hold(leaf.untyped_storage())
        return result

    def _hold(self, storage):
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.live += self._sizes[key]
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key):
        self.live -= self._sizes.pop(key)


class Saved:
    """Hooks that hold the tensors saved for the backward pass, each until the backward pass has used it."""

    def __init__(self):
        self.tensors = {}

    def hooks(self):
        """Returns a context manager in which the hooks are active."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, tensor):
        key = object()
        self.tensors[key] = tensor
        return key

    def _unpack(self, key):
        return self.tensors.pop(key)


def full_model(name, folder, checkpointing):
    """Returns a full-size model without memory for its weights, and its config."""
    config = Config.fromfile(str(rass_mm.config_path(name)))
    part = config.model.backbone if name == RASS else config.model
    part.base, part.gradient_checkpointing = str(folder), checkpointing
    init_default_scope('mmseg')
    with torch.device('meta'):
        return MODELS.build(config.model), config


def step_memory(name, folder, batch, checkpointing, size):
    """Runs a training step. Returns the bytes of the weights, of the rest of the step at its peak, and the sum."""
    model, config = full_model(name, folder, checkpointing)
    with CountedCuda() as card:
        model = card.placed(model).train()
        weights = card.live
        optimizer = build_optim_wrapper(model, fitted_precision(dict(config.optim_wrapper)))
        given, saved = BATCHES[name](size, batch), Saved()
        with saved.hooks():
            model.train_step(given, optimizer)
        states = sum(
            value.numel() * value.element_size()
            for wrapper in (optimizer.values() if hasattr(optimizer, 'values') else [optimizer])
            for state in wrapper.optimizer.state.values()
            for value in state.values()
            if value.device.type == 'cuda'
        )
        return weights, states, card.peak


def main(argv):
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch', type=int, nargs='+', default=[1, 2, 16])
    parser.add_argument('--side', type=int, default=512, help='side of crops (segmentor: padded to 512)')
    options = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_random_base(Path(folder) / 'base', 'sd21-base', weights=False)
        for name in BATCHES:
            for batch in options.batch:
                for checkpointing in (False, True):
                    size = (options.side, options.side)
                    weights, states, peak = step_memory(name, Path(folder) / 'base', batch, checkpointing, size)
                    kept = 'yes' if checkpointing else 'no'
                    figures = [weights, states, peak - weights - states, peak]
                    rows.append([name, batch, kept, *(f'{figure / GIB:.2f}' for figure in figures)])
                    print(*rows[-1], file=sys.stderr, flush=True)
    heads = ['config', 'batch', 'checkpointing', 'weights', 'optimiser', 'gradients and activations', 'peak (GiB)']
    print(markdown_table(heads, rows))


if __name__ == '__main__':
    main(sys.argv[1:])
