"""Optimisation of one network with two optimisers: construction, update steps and distributed training."""

import logging
from typing import Any

import torch
from mmagic.registry import MODEL_WRAPPERS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.dist import all_reduce_params, broadcast
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn

from rass_mm.engine.finite import check_losses
from rass_mm.errors import ConfigError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SCROptimWrapperConstructor:
    """Builds one optimiser wrapper for each parameter group of `SCRRestorer.trained_parameters`.

    Args:
        optim_wrapper_cfg: dict with the keys `generator` and `critic`. Each value is the config of an optimiser wrapper
            with its `optimizer`.
        paramwise_cfg: required by mmengine's interface; must be None.

    Raises:
        ConfigError: `paramwise_cfg` is given.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        if paramwise_cfg:
            raise ConfigError(
                'optim_wrapper.paramwise_cfg is not supported for a restorer, because each of its parameter groups has '
                'its own wrapper. Set the learning rates in optim_wrapper.generator and optim_wrapper.critic.'
            )
        self.configs = {key: value for key, value in optim_wrapper_cfg.items() if key != 'constructor'}

    def __call__(self, module: nn.Module) -> OptimWrapperDict:
        """Builds a wrapper for each parameter group that the model trains.

        Raises:
            ConfigError: a group has no config.
        """
        module = getattr(module, 'module', module)
        groups = module.trained_parameters()
        missing = groups.keys() - self.configs.keys()
        if missing:
            raise ConfigError(
                f'optim_wrapper has no {sorted(missing)[0]!r}: the model trains {", ".join(groups)}, '
                f'but the config has {", ".join(self.configs) or "none"}. Add it to optim_wrapper.'
            )
        spare = self.configs.keys() - groups.keys()
        if spare:
            print_log(
                f'optim_wrapper.{sorted(spare)[0]} is not used, because no loss trains these parameters.',
                'current',
                logging.INFO,
            )
        return OptimWrapperDict(**{name: _build(self.configs[name], groups[name]) for name in groups})


def _build(config: dict[str, Any], parameters: list[nn.Parameter]) -> OptimWrapper:
    config = dict(config)
    optimizer = OPTIMIZERS.build({**config.pop('optimizer'), 'params': parameters})
    config.setdefault('type', 'OptimWrapper')
    return OPTIM_WRAPPERS.build(config, default_args={'optimizer': optimizer})


def update(wrapper: OptimWrapper, loss: Tensor, parts: dict[str, Tensor]) -> None:
    """Runs the backward pass, averages the gradients over all processes and updates the parameters.

    With gradient accumulation, the last two steps are done only in iterations in which `wrapper` updates.

    Args:
        wrapper: the optimiser wrapper.
        loss: the scalar to minimise.
        parts: named parts of the loss, for the error message.

    Raises:
        TrainingError: the loss is not finite; no parameter was changed.
    """
    if not torch.isfinite(loss):
        check_losses({'loss': loss, **parts})
    wrapper.backward(wrapper.scale_loss(loss))
    if wrapper.should_update():
        gradients = [p.grad for group in wrapper.param_groups for p in group['params'] if p.grad is not None]
        all_reduce_params(gradients, op='mean')
        wrapper.step()
        wrapper.zero_grad()


@MODEL_WRAPPERS.register_module()
class WholeModelDistributed(nn.Module):
    """Data-parallel wrapper for models that update their own optimisers.

    PyTorch's wrapper supports only one forward and one backward pass per step. Here, two optimisers share a network,
    and `update` averages the gradients of each. All processes start with the trained parameters of the first process.

    Args:
        module: the model.
        kwargs: options of PyTorch's wrapper, which are ignored.
    """

    def __init__(self, module: nn.Module, **kwargs: Any) -> None:
        super().__init__()
        self.module = module
        for parameter in module.parameters():
            if parameter.requires_grad:
                broadcast(parameter.data)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Calls `train_step` of the model."""
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: Any) -> list:
        """Calls `val_step` of the model."""
        return self.module.val_step(data)

    def test_step(self, data: Any) -> list:
        """Calls `test_step` of the model."""
        return self.module.test_step(data)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model."""
        return self.module(*args, **kwargs)
