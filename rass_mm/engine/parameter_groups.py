"""Optimizer parameter groups in which norm layers have their own weight decay."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NormDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """`DefaultOptimWrapperConstructor` of mmengine in which `norm_decay_mult` applies to every norm layer.

    mmengine ignores `norm_decay_mult` for parameters that match one of the `custom_keys`. A key that lowers the
    learning rate of a whole module would therefore also apply weight decay to its norm layers. detectron2, with which
    the released segmentor was trained, sets the weight decay of norm layers independently of their learning rate.
    """

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, *args: Any, **kwargs: Any) -> None:
        """Appends one parameter group to `params` for each trained parameter of `module` and its children."""
        rules = self.paramwise_cfg
        if isinstance(module, NORMS) and 'norm_decay_mult' in rules:
            # Set in the keys rather than in the finished groups, because mmengine logs each group when it creates it.
            decay = {'decay_mult': rules['norm_decay_mult']}
            keys = {key: {**options, **decay} for key, options in rules.get('custom_keys', {}).items()}
            self.paramwise_cfg = {**rules, 'custom_keys': keys}
        super().add_params(params, module, *args, **kwargs)
        self.paramwise_cfg = rules
