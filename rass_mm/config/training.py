"""Check of the `train_cfg` of a segmentor."""

from collections.abc import Mapping
from typing import Any

from rass_mm.config.arguments import NotNegative, value_fault
from rass_mm.config.names import is_misspelled, suggestion

TWINS = 'clean_twins'
"""Key of the settings of clean twins, see `rass_mm.segmentation.clean_twins`."""
WEIGHT = 'kl_weight'


def train_cfg_fault(train_cfg: Any, path: str) -> str | None:
    """Returns what is wrong with `clean_twins` in the `train_cfg` of a segmentor, or None.

    Args:
        train_cfg: value of `train_cfg`. Its further keys are those of mmseg and are not checked.
        path: key of `train_cfg` in the config, for the message.
    """
    if not isinstance(train_cfg, Mapping):
        return None
    for key in train_cfg:
        if key != TWINS and is_misspelled(key, [TWINS]):
            return f'{path}.{key} is not a setting of a segmentor. {suggestion(key, [TWINS])}'
    twins = train_cfg.get(TWINS)
    if twins is None:
        return None
    if not isinstance(twins, Mapping) or WEIGHT not in twins:
        return (
            f'{path}.{TWINS} is {twins!r}, but it should be a dict such as dict({WEIGHT}=1.0), or None. With '
            f'{WEIGHT}=0, the model is trained on both images without the KL divergence.'
        )
    for key in twins:
        if key != WEIGHT:
            return f'{path}.{TWINS}.{key} is not a setting of {TWINS}. {suggestion(key, [WEIGHT])}'
    fault = value_fault(twins[WEIGHT], NotNegative)
    return f'{path}.{TWINS}.{WEIGHT} {fault[1]}' if fault else None
