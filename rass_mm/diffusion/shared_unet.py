"""One base UNet that is used as generator, critic and frozen teacher by means of named adapters.

The published recipe keeps three copies of the UNet (OSEDiff, arXiv 2406.08177). They differ only in their LoRA and in
the `conv_in` of the generator, so one copy and two small adapters are sufficient: the generator uses adapter `scr`, the
critic uses adapter `vsd` and the base's `conv_in`, and the teacher uses no adapter.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers import UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from rass_mm.diffusion.adapters import AdapterSpec, add_adapter
from rass_mm.errors import AdapterError

GENERATOR, CRITIC = 'scr', 'vsd'


class SharedUNet:
    """A UNet that acts as the generator and, inside context managers, as the critic or the plain base.

    This class is not a module. Its owner has to register the UNet and `plain_conv_in` as modules.

    Outside of the context managers, the generator is always active, regardless of which parameters require gradients.
    With gradient checkpointing, a backward pass outside of them therefore recomputes the layers of the generator.

    Args:
        unet: a frozen UNet without adapters, modified in place.
        generator: settings of the generator's LoRA. None uses the defaults of `AdapterSpec`. The generator's `conv_in`
            is trained in full.
        critic: settings of the critic's LoRA. None creates no critic.
    """

    def __init__(
        self, unet: UNet2DConditionModel, generator: AdapterSpec | None = None, critic: AdapterSpec | None = None
    ) -> None:
        # A copy, because the generator trains the one in the UNet, whereas critic and teacher need that of the base.
        self.plain_conv_in = copy.deepcopy(unet.conv_in).requires_grad_(False)
        self.unet = unet
        self.has_critic = critic is not None
        if critic is not None:
            add_adapter(unet, CRITIC, critic, train_conv_in=False)
        add_adapter(unet, GENERATOR, generator)
        self._trained = self.parameters_of(GENERATOR) + (self.parameters_of(CRITIC) if critic else [])
        for parameter in self._trained:
            parameter.requires_grad_(True)

    def parameters_of(self, name: str) -> list[nn.Parameter]:
        """Returns the trained parameters of an adapter: LoRA and `conv_in` for 'scr', only the LoRA for 'vsd'."""
        own = [p for key, p in self.unet.named_parameters() if f'.lora_A.{name}.' in key or f'.lora_B.{name}.' in key]
        return own + (list(self._conv_in_holder().parameters()) if name == GENERATOR else [])

    @contextmanager
    def critic(self) -> Iterator[None]:
        """Context manager. Inside the block, the UNet is the critic.

        Raises:
            AdapterError: there is no critic.
        """
        if not self.has_critic:
            raise AdapterError(
                'This UNet has no critic, which the VSD loss needs. Pass an AdapterSpec as critic when you build it.'
            )
        with self._other(CRITIC):
            yield

    @contextmanager
    def teacher(self) -> Iterator[None]:
        """Context manager. Inside the block, the UNet is the plain base, without adapters."""
        with self._other(None):
            yield

    @contextmanager
    def _other(self, name: str | None) -> Iterator[None]:
        conv_in = self._conv_in_holder()
        try:
            self._activate(name)
            self._put_conv_in(self.plain_conv_in)
            yield
        finally:
            self._put_conv_in(conv_in)
            self._activate(GENERATOR)

    def _activate(self, name: str | None) -> None:
        # peft freezes all adapters that are not active, but here several adapters are trained alternately.
        flags = [parameter.requires_grad for parameter in self._trained]
        for module in self.unet.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(name is not None)
                if name is not None:
                    module.set_adapter([name])
        for parameter, flag in zip(self._trained, flags, strict=True):
            parameter.requires_grad_(flag)

    def _conv_in_holder(self) -> nn.Module:
        """Returns the convolution `conv_in` without its LoRA wrapper."""
        layer = self.unet.conv_in
        return layer.base_layer if isinstance(layer, BaseTunerLayer) else layer

    def _put_conv_in(self, conv: nn.Module) -> None:
        layer = self.unet.conv_in
        if isinstance(layer, BaseTunerLayer):
            layer.base_layer = conv
        else:
            self.unet.conv_in = conv
