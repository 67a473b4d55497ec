"""Definition of "ready to run": what is done to a trained model before it predicts.

Every command that predicts (`segment`, `restore`, `test`, `benchmark`) and the Python functions `load_segmentor` and
`load_restorer` call `prepare`.

A model describes its own preparation with a method `prepare_prediction(dtype)`. It merges what can be merged in
float32, drops what prediction does not need, and casts the weights, without changing tensors in place. `prepare` does
the rest.
"""

import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from rass_mm.devices import Autocast, compute_in, dtype_name
from rass_mm.engine.packing import can_pack, pack, unregistered
from rass_mm.errors import CheckpointError, ConfigError

PREPARED = 'prepared_as'
"""Attribute of a prepared model that contains its `Preparation`."""


@dataclass(frozen=True)
class Preparation:
    """Settings of `prepare`.

    Args:
        dtype: 'float32', 'bfloat16' or 'float16'.
        channels_last: whether convolutions use the channels-last layout. None uses it with packed weights, and in half
            precision.
        compile: whether to compile the most expensive modules with `torch.compile`, for inputs of few different sizes.
        pack: whether weights have the layout of the CPU's kernels, see `rass_mm.engine.packing`. None packs them on a
            CPU that supports it, unless the model is compiled. Packed models cannot be exported, copied or moved.

    Raises:
        ConfigError: the dtype is unknown.
    """

    dtype: str = 'float32'
    channels_last: bool | None = None
    compile: bool = False
    pack: bool | None = None

    def __post_init__(self) -> None:
        dtype_name(self.dtype)

    def settled(self, device: torch.device, own: bool = True) -> 'Preparation':
        """Returns the settings with True or False in place of None.

        Args:
            device: the device of the model.
            own: whether a part of the model has a method `prepare_prediction`. If none has one, the weights are neither
                packed nor laid out.
        """
        if not own:
            return replace(self, channels_last=False, pack=False)
        packed = device.type == 'cpu' and not self.compile and self.dtype != 'float16' and can_pack()
        packed = packed if self.pack is None else self.pack
        chosen = packed or self.dtype != 'float32' if self.channels_last is None else self.channels_last
        return replace(self, channels_last=chosen, pack=packed)

    def record(self, device: torch.device, own: bool = True) -> dict[str, Any]:
        """Returns the settled values for manifests, because they decide the last bits of results, see `settled`."""
        return asdict(self.settled(device, own))

    def described(self, device: torch.device, own: bool = True) -> str:
        """Describes the settled values in a few words, e.g. 'bfloat16 on cpu, prepared, weights packed for the CPU'."""
        how = self.settled(device, own)
        plain = 'network as trained' if how.dtype == 'float32' else 'autocast'
        words = [f'{how.dtype} on {device}', 'prepared' if own else plain]
        words += ['compiled'] * how.compile + ['weights packed for the CPU'] * how.pack
        return ', '.join(words)


def prepare(model: nn.Module, how: Preparation | None = None) -> nn.Module:
    """Makes a trained model ready to predict, in place.

    The adapters are merged in float32, parts that prediction does not need are dropped, and the weights are cast and
    laid out as `how` says. In float32, the results equal those of the unprepared model up to rounding. A model without
    `prepare_prediction`, such as a plain mmseg segmentor, runs under autocast in half precision and is not changed
    otherwise.

    Tensors are replaced and not changed in place, so a `sharing_copy` of a model can be prepared without changing the
    model. A prepared model cannot be trained, and its state dict can neither be loaded nor saved.

    Args:
        model: a segmentor, a restorer, or a module that contains one, with loaded weights on its device.
        how: the settings; None uses the defaults of `Preparation`.

    Returns:
        The model, in eval mode.

    Raises:
        ConfigError: the model is already prepared.
    """
    if hasattr(model, PREPARED):
        raise ConfigError('The model is already prepared. Load it again to prepare it with other settings.')
    device = next((tensor.device for tensor in model.parameters()), torch.device('cpu'))
    how = how or Preparation()
    model.eval()
    described = prepare_part(model, getattr(torch, how.dtype))
    how = how.settled(device, bool(described))
    for part in described:
        if how.channels_last:
            part.to(memory_format=torch.channels_last)
        if how.pack:
            pack(part, getattr(torch, how.dtype))
    if how.compile:
        compile_modules(heavy_modules(model, described))
    setattr(model, PREPARED, how)
    for module in model.modules():
        module._load_from_state_dict = refuse_loading
        module.register_state_dict_pre_hook(refuse_saving)
    return model


def chosen_preparation(
    dtype: str | torch.dtype | None = None,
    compile: bool = False,
    deterministic: bool = False,
    default: Preparation | None = None,
) -> Preparation | None:
    """Returns the settings for the options of a command.

    Args:
        dtype: the name of the dtype that the user has chosen, or the torch dtype, or None.
        compile: whether to compile the model.
        deterministic: whether to use PyTorch's deterministic algorithms and to compute in float32 with the network as
            it was trained. The results are then bit-equal in every run on the same machine.
        default: the settings if the user has chosen none of these; None does not prepare the model.

    Returns:
        The settings, or None if the model is not prepared and computes in float32.

    Raises:
        ConfigError: the dtype is unknown, or `deterministic` is combined with another dtype than float32, or with
            `compile`.
    """
    dtype = None if dtype is None else dtype_name(dtype)
    if not deterministic:
        usual = default.dtype if default else 'float32'
        return Preparation(dtype or usual, compile=compile) if dtype or compile else default
    if dtype not in (None, 'float32') or compile:
        raise ConfigError(
            'deterministic (--deterministic) computes in float32 with the network as it was trained. Remove dtype '
            '(--dtype) and compile (--compile).'
        )
    torch.use_deterministic_algorithms(True, warn_only=True)  # some operators on CUDA have no such algorithm
    return None


def prepare_part(module: nn.Module, dtype: torch.dtype) -> list[nn.Module]:
    """Prepares a module for prediction in `dtype`, in place.

    Returns:
        The modules whose weights can be packed: those that a method `prepare_prediction` returns, or its owner. A
        segmentor or head of another library is none of them, because its code may read its weights.
    """
    if hasattr(module, 'prepare_prediction'):
        parts = module.prepare_prediction(dtype)
        return [module] if parts is None else parts
    if hasattr(module, 'data_preprocessor') or isinstance(module, nn.ModuleList):
        # a model of mmengine, such as a segmentor or test-time augmentation, or several heads
        return [part for child in module.children() for part in prepare_part(child, dtype)]
    if next(module.parameters(), None) is not None:
        compute_in(module, 'forward', dtype, Autocast)
    return []


def heavy_modules(model: nn.Module, parts: Iterable[nn.Module]) -> list[nn.Module]:
    """Returns the modules to compile: those that the model or its parts describe, else the model's backbone."""
    owners = [model] if hasattr(model, 'heavy_modules') else parts
    found = [module for part in owners if hasattr(part, 'heavy_modules') for module in part.heavy_modules()]
    return found or ([model.backbone] if hasattr(model, 'backbone') else [])


def compile_modules(modules: Iterable[nn.Module]) -> None:
    """Compiles the forward pass of modules, in place. The shapes of inputs are static."""
    for module in modules:
        on_cuda = any(tensor.is_cuda for tensor in module.parameters())
        mode = 'reduce-overhead' if on_cuda else None  # CUDA graphs, because eager mode is launch-bound
        module.forward = torch.compile(module.forward, mode=mode, dynamic=False)


def sharing_copy(model: nn.Module) -> nn.Module:
    """Returns a copy of a model with its own parameters, whose memory is that of the model's tensors."""
    shared: dict[int, Any] = {}
    for part in [model, *(found for module in model.modules() for found in unregistered(module))]:
        for parameter in part.parameters():
            shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for buffer in part.buffers():
            shared[id(buffer)] = buffer.detach()
    return copy.deepcopy(model, shared)


def is_changed(model: nn.Module, how: Preparation) -> bool:
    """Returns whether `prepare` changes the computation of a model."""
    return (
        how.compile
        or how.dtype != 'float32'
        or any(hasattr(module, 'prepare_prediction') for module in model.modules())
    )


def refuse_loading(*_: Any, **__: Any) -> None:
    """Raises a `CheckpointError`, because a prepared model does not have the tensors of a checkpoint."""
    raise CheckpointError(
        'The model is prepared for prediction, so no checkpoint can be loaded into it. Build the model again, load the '
        'checkpoint, and prepare it then.'
    )


def refuse_saving(*_: Any) -> None:
    """Raises a `CheckpointError`, because a prepared model lacks tensors of a checkpoint."""
    raise CheckpointError(
        'The model is prepared for prediction, so it has no state dict. Save the state dict before the model is '
        'prepared.'
    )
