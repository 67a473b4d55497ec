"""CUDA without a card: runs code on fake CUDA tensors and records what would stall or fail on a real card.

Tensors on the CPU are real, and tensors on `cuda` are PyTorch's fake tensors, which have a shape, a dtype and a device
but no values. Fake tensors alone do not notice a copy between devices, so `FakeCuda` checks every operation:

- `copy`: a copy between the CPU and the card. Without pinned memory, it blocks the CPU until the card is idle.
- `read`: a value or a shape that the CPU reads from the card (`item`, `bool`, `nonzero`, `x[mask]`, `unique`, ...).
- `mixed`: an operation on tensors of both devices, other than a scalar on the CPU.
- `scalar`: a 0-dimensional tensor on the CPU that takes part in an operation on the card, which PyTorch supports.
- `generator`: random numbers for the card from a generator of the CPU.
- `synchronize`: an explicit `torch.cuda.synchronize`.

Values read from the card are invented: all conditions are true, so that all branches with work are taken.
"""

import copy
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from fake_backward import backward
from mmengine.model import BaseModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CUDA = torch.device('cuda:0')
INDEXED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
CONSTANTS = (
    *(aten.new_zeros.default, aten.new_ones.default, aten.new_full.default),
    *(aten.zeros_like.default, aten.ones_like.default, aten.full_like.default),
)
SOURCES = (
    *(aten._to_copy.default, aten.zeros.default, aten.ones.default, aten.full.default, aten.scalar_tensor.default),
    *(aten.arange.default, aten.arange.start, aten.arange.start_step),
)
KNOWN = 1024
"""Largest number of elements of a tensor on the card whose values are known."""


class _Fakes(FakeTensorMode):
    """Fake tensor mode that never initializes a device, although CUDA is said to be available."""

    avoid_device_init = True


class FakeCuda(TorchDispatchMode):
    """Context manager. Inside the block, `cuda` is a fake device, and `found` counts the findings.

    A finding is (kind, place), where the place is the innermost function outside of PyTorch, as 'module:function'.
    """

    def __init__(self):
        super().__init__()
        self.found = Counter()
        self.fakes = _Fakes(allow_non_fake_inputs=True)
        self._stack = ExitStack()

    def __enter__(self):
        self._stack.enter_context(self.fakes)
        for name in ('torch.optim.optimizer', 'torch.utils._foreach_utils'):  # as on a card, where optimizers use these
            types = sys.modules[name]._foreach_supported_types
            types.append(FakeTensor)
            self._stack.callback(types.remove, FakeTensor)
        for target, value in self._patches().items():
            self._stack.enter_context(mock.patch(target, value))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._stack.close()

    def _patches(self):
        return {
            'torch.cuda.is_available': lambda: True,
            'torch.cuda.is_bf16_supported': lambda *_, **__: True,
            'torch.cuda._lazy_init': lambda: None,
            'torch.cuda.current_device': lambda: 0,
            'torch.cuda.device_count': lambda: 1,
            'torch.cuda.is_current_stream_capturing': lambda: False,
            'torch.cuda.synchronize': lambda *_: self.note('synchronize'),
            'torch.cuda.reset_peak_memory_stats': lambda *_: None,
            'torch.cuda.memory_allocated': lambda *_: 0,
            'torch.cuda.max_memory_allocated': lambda *_: 0,
            'torch.amp.autocast_mode.torch.cuda.amp.common.amp_definitely_not_available': lambda: False,
            'torch._subclasses.fake_tensor.init_gpu_context': lambda device: None,
            'torch._subclasses.fake_tensor.FakeTensor.tolist': lambda tensor: self._listed(tensor),
            'torch.utils.swap_tensors': lambda old, new: setattr(old, 'data', new),  # `to(dtype)`, as for real tensors
            'torch.autograd.backward': backward,
            'torch.Tensor.backward': lambda loss, gradient=None, **_: backward([loss], [gradient]),
            'mmengine.device.utils.DEVICE': 'cuda',
            'mmcv.ops.multi_scale_deform_attn.IS_CUDA_AVAILABLE': True,
            'mmcv.ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply': deformable_operator,
        }

    def note(self, kind):
        """Counts a finding at the current place."""
        self.found[kind, _place()] += 1

    def _listed(self, tensor):
        if tensor.device.type == 'cuda':
            self.note('read')
        return self.values(tensor).tolist()

    def placed(self, model):
        """Returns a copy of a model on the fake card. Tensors that are no parameters or buffers stay on the CPU."""
        tensors = {}
        for part in [model, *getattr(model, 'unregistered', list)()]:
            for tensor in [*part.parameters(), *part.buffers()]:
                tensors[id(tensor)] = tensor
        placed = copy.deepcopy(model, {key: self._placed(tensor) for key, tensor in tensors.items()})
        for module in placed.modules():
            if isinstance(module, BaseModel):
                module._set_device(CUDA)
        return placed

    def _placed(self, tensor):
        fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)
        return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == 'prim':  # a property of a fake tensor
            return func(*args, **kwargs)
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        faked = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        target = kwargs.get('device')
        if not faked and (target is None or torch.device(target).type != 'cuda'):
            return on_cpu(func, args, kwargs)
        if torch.is_inference_mode_enabled() and func._can_decompose():  # there, such operations arrive whole
            with self._inside():
                return func.decompose(*args, **kwargs)
        if any(isinstance(leaf, torch.Generator) and leaf.device.type == 'cpu' for leaf in leaves):
            self.note('generator')
            args, kwargs = tree_map(lambda leaf: None if isinstance(leaf, torch.Generator) else leaf, (args, kwargs))
        if func in (aten._to_copy.default, aten.copy_.default):
            result = self._copied(func, args, kwargs)
        else:
            result = self._computed(func, args, kwargs, tensors, faked)
        return self._with_values(func, args, kwargs, faked, result)

    @contextmanager
    def _inside(self):
        """Context manager. The parts of an operation are checked too."""
        super().__enter__()
        try:
            yield
        finally:
            super().__exit__(None, None, None)

    def _copied(self, func, args, kwargs):
        if func is aten.copy_.default:
            here, there = args[1], args[0].device
        else:
            here, there = args[0], torch.device(kwargs.get('device') or args[0].device)
        if here.device.type == there.type or 'meta' in (here.device.type, there.type):
            return func(*args, **kwargs)
        self.note('copy')
        if there.type == 'cuda':
            return func(*args, **kwargs)
        values = self.values(here)
        if func is aten.copy_.default:
            return on_cpu(func, (args[0], values), {})
        return on_cpu(func, (values,), {**kwargs, 'device': 'cpu'})

    def _computed(self, func, args, kwargs, tensors, faked):
        strays = [tensor for tensor in tensors if not isinstance(tensor, FakeTensor) and tensor.device.type == 'cpu']
        if faked and strays:
            self.note('mixed' if any(stray.ndim for stray in strays) else 'scalar')
        if func in READS:
            self.note('read')
            return READS[func](self, *args, **kwargs)
        if func in INDEXED:
            args = (args[0], [index for given in args[1] for index in self._indices(given)], *args[2:])
        return func(*args, **kwargs)

    def _indices(self, index):
        """Converts a mask to the indices of all its elements. On a card, this reads their number."""
        if index is None or index.dtype not in (torch.bool, torch.uint8):
            return [index]
        self.note('read')
        count = self.count(index)
        return [index.new_zeros(count, dtype=torch.long) for _ in range(index.ndim)]

    def count(self, mask):
        """Returns the number of true elements of a mask on the card: the known number, or that of all elements."""
        return (
            on_cpu(lambda known: int((known != 0).sum()), (mask.known,), {}) if hasattr(mask, 'known') else mask.numel()
        )

    def values(self, tensor):
        """Returns the values of a tensor on the card if they are known, else invented ones."""
        return tensor.known if hasattr(tensor, 'known') else invented(tensor.shape, tensor.dtype)

    def _with_values(self, func, args, kwargs, faked, result):
        """Adds the values to small tensors that depend on the CPU alone, such as the sizes of feature maps."""
        small = isinstance(result, FakeTensor) and result.numel() <= KNOWN and result.device.type == 'cuda'
        blank = func in CONSTANTS
        computed = bool(faked) and all(hasattr(tensor, 'known') for tensor in faked)
        if small and (blank or computed or (not faked and func in SOURCES)):
            args, kwargs = tree_map(lambda leaf: _known(leaf, blank), (args, kwargs))
            result.known = on_cpu(func, args, {**kwargs, 'device': 'cpu'} if 'device' in kwargs else kwargs)
        elif isinstance(result, FakeTensor) and hasattr(result, 'known'):
            del result.known  # changed in place
        return result


def _known(leaf, blank):
    if not isinstance(leaf, FakeTensor):
        return leaf
    if not blank:
        return leaf.known
    with unset_fake_temporarily():
        return torch.empty(leaf.shape if leaf.numel() <= KNOWN else 0, dtype=leaf.dtype)


def on_cpu(func, args, kwargs):
    """Runs an operation on real tensors."""
    with unset_fake_temporarily():
        return func(*args, **kwargs)


def _item(trace, tensor):
    return on_cpu(aten._local_scalar_dense.default, (trace.values(tensor),), {})


def _unique(trace, tensor, *_, **__):
    found = on_cpu(torch.unique, (tensor.known,), {}) if hasattr(tensor, 'known') else None
    ids = tensor.new_zeros(min(tensor.numel(), 3) if found is None else len(found))
    if found is not None:
        ids.known = found
    return ids, torch.zeros_like(tensor, dtype=torch.long), torch.zeros_like(ids, dtype=torch.long)


def _bincount(trace, tensor, weights=None, minlength=0):
    return tensor.new_zeros(max(minlength, 1), dtype=torch.long)


READS = {
    aten._local_scalar_dense.default: _item,
    aten.nonzero.default: lambda trace, x: x.new_zeros((trace.count(x), x.ndim), dtype=torch.long),
    aten.masked_select.default: lambda trace, x, mask: x.new_zeros(trace.count(mask)),
    aten._unique2.default: _unique,
    aten.unique_dim.default: _unique,
    aten.unique_consecutive.default: _unique,
    aten.bincount.default: _bincount,
    aten.equal.default: lambda *_: True,
}
"""Operations that wait for the card, and what they return here."""


def invented(shape, dtype):
    """Returns values for a tensor that is read from the card: true conditions, 0.5, or ids from 1 to 8."""
    with unset_fake_temporarily():
        if dtype is torch.bool or dtype.is_floating_point:
            return torch.full(tuple(shape), True if dtype is torch.bool else 0.5, dtype=dtype)
        return (torch.arange(torch.Size(shape).numel()) % 8 + 1).reshape(shape).to(dtype)


def deformable_operator(value, shapes, starts, locations, weights, step):
    """Stands in for mmcv's CUDA operator, which is no PyTorch operator: the shape and the inputs are the same."""
    assert {part.device.type for part in (value, shapes, starts, locations, weights)} == {'cuda'}
    batch, _, heads, channels = value.shape
    summed = weights.flatten(3).sum(-1, keepdim=True) + locations.flatten(3).sum(-1, keepdim=True)
    return (value.mean(1, keepdim=True).expand(batch, summed.shape[1], heads, channels) * summed).flatten(2)


def _place():
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        if name.split('.')[0] not in ('torch', 'fake_cuda', 'fake_backward', 'contextlib'):
            code = frame.f_code
            return f'{name}:{getattr(code, "co_qualname", code.co_name)}'
        frame = frame.f_back
    return '?'
