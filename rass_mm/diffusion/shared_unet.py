"""One base UNet that serves as generator, critic and frozen teacher, by named adapters.

The published recipe keeps three copies of the UNet (OSEDiff, arXiv 2406.08177). They differ in their LoRA and in the
generator's own `conv_in` only, so one copy and two small adapters are enough: generator = adapter `scr`, critic =
adapter `vsd` on the base's `conv_in`, teacher = no adapter at all.
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
    """A UNet with the generator active, and contexts in which it is the critic or the plain base.

    No module itself: whoever makes it owns the UNet and `plain_conv_in` as modules.

    Outside the contexts the generator is active, whichever trained parameters require gradients, so a backward pass
    that runs layers again (gradient checkpointing) runs the same ones.

    Args:
        unet: a frozen UNet without adapters; changed in place.
        generator: rank and scale of the generator's LoRA; its `conv_in` is trained in full.
        critic: rank and scale of the critic's LoRA; None leaves the critic out.
    """

    def __init__(
        self, unet: UNet2DConditionModel, generator: AdapterSpec | None = None, critic: AdapterSpec | None = None
    ) -> None:
        # A copy, because the generator trains the one in the UNet and the other two need the base's.
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
        """The trained parameters of 'scr' (LoRA and `conv_in`) or 'vsd' (LoRA)."""
        own = [p for key, p in self.unet.named_parameters() if f'.lora_A.{name}.' in key or f'.lora_B.{name}.' in key]
        return own + (list(self._conv_in_holder().parameters()) if name == GENERATOR else [])

    @contextmanager
    def critic(self) -> Iterator[None]:
        """Inside, the UNet is the critic.

        Raises:
            AdapterError: there is none.
        """
        if not self.has_critic:
            raise AdapterError('This UNet was made without a critic: give the VSD loss an adapter (rank, alpha).')
        with self._other(CRITIC):
            yield

    @contextmanager
    def teacher(self) -> Iterator[None]:
        """Inside, the UNet is the plain base."""
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
        # peft freezes whatever is not active; here several adapters train in turn.
        flags = [parameter.requires_grad for parameter in self._trained]
        for module in self.unet.modules():
            if isinstance(module, BaseTunerLayer):
                module.enable_adapters(name is not None)
                if name is not None:
                    module.set_adapter([name])
        for parameter, flag in zip(self._trained, flags, strict=True):
            parameter.requires_grad_(flag)

    def _conv_in_holder(self) -> nn.Module:
        """The plain convolution in `conv_in`, below the LoRA where there is one."""
        layer = self.unet.conv_in
        return layer.base_layer if isinstance(layer, BaseTunerLayer) else layer

    def _put_conv_in(self, conv: nn.Module) -> None:
        layer = self.unet.conv_in
        if isinstance(layer, BaseTunerLayer):
            layer.base_layer = conv
        else:
            self.unet.conv_in = conv
