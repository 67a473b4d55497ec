"""Building of the enabled losses of SCR from their configs."""

from typing import Any

from mmagic.registry import MODELS
from torch import nn

from rass_mm.errors import ConfigError

LOSSES = ('pixel', 'perceptual', 'score', 'constraint')


def build_losses(configs: dict[str, Any]) -> nn.ModuleDict:
    """Builds the losses that are enabled.

    Args:
        configs: name -> config, see `SCRRestorer`. A loss is disabled if its config is None or has weight 0.

    Raises:
        ConfigError: the name of a loss is unknown.
    """
    unknown = sorted(configs.keys() - set(LOSSES))
    if unknown:
        raise ConfigError(f'losses has the unknown key {unknown[0]!r}. Choose from {", ".join(LOSSES)}.')
    # The scope is explicit, because with mmseg's default scope the types would be looked up in mmseg's registry.
    switched_on = {name: {**configs[name], '_scope_': 'mmagic'} for name in LOSSES if _is_on(configs.get(name))}
    return nn.ModuleDict({name: MODELS.build(config) for name, config in switched_on.items()})


def _is_on(config: dict[str, Any] | None) -> bool:
    return config is not None and config.get('loss_weight', 1.0) != 0
