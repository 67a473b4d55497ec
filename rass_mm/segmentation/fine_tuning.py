"""Training on other classes from a trained segmentor: the switch `fine_tune` of a config."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from mmseg.registry import MODELS

from rass_mm.config.kinds import as_list
from rass_mm.datasets.classes import HEADS, segmentor_parts
from rass_mm.errors import ConfigError


def check_fine_tuning(config: dict[str, Any]) -> None:
    """Raises a ConfigError if a config sets both `fine_tune` and `load_from`."""
    if config.get('fine_tune') and config.get('load_from'):
        raise ConfigError(
            f'The config sets both fine_tune={config["fine_tune"]!r} and load_from={config["load_from"]!r}. Remove '
            f'load_from: fine_tune loads everything but the tensors that depend on the classes.'
        )


def use_fine_tuning(config: dict[str, Any]) -> None:
    """Applies `fine_tune=CHECKPOINT` of a config: the segmentor starts from the file, its class layers from random.

    Sets the `init_cfg` of the segmentor, which mmengine applies when training starts, and neither in tests nor after
    the checkpoint of a resumed run.

    Raises:
        ConfigError: the model has no decode head.
    """
    checkpoint = config.get('fine_tune')
    if not checkpoint:
        return
    segmentor = next((part for _, part in segmentor_parts(config.get('model')) if part.get('decode_head')), None)
    if segmentor is None:
        raise ConfigError(
            'fine_tune needs a segmentor with a decode head. A restorer starts from another one by '
            'model.start=ADAPTER_FILE.'
        )
    fresh = sorted(class_tensors(segmentor))
    segmentor['init_cfg'] = {'type': 'Pretrained', 'checkpoint': str(checkpoint), 'fresh': fresh}


def class_tensors(segmentor: dict[str, Any]) -> Iterator[str]:
    """Yields the names of a segmentor's tensors whose shape depends on the number of classes.

    Args:
        segmentor: config of the model; its heads are built for 7 and for 8 classes, and compared.
    """
    for name in HEADS:
        heads = segmentor.get(name)
        several = isinstance(heads, list | tuple)
        for index, head in enumerate(as_list(heads)):
            prefix = f'{name}.{index}' if several else name
            small, large = _shapes(head, 7), _shapes(head, 8)
            yield from (f'{prefix}.{key}' for key in small if small[key] != large[key])


def _shapes(head: dict[str, Any], count: int) -> dict[str, torch.Size]:
    head = {**copy.deepcopy(dict(head)), 'num_classes': count}
    if 'channels' in head:  # of mmseg's own heads, whose `out_channels` are the classes
        head.pop('out_channels', None)
    with torch.random.fork_rng(devices=[]):
        return {key: value.shape for key, value in MODELS.build(head).state_dict().items()}
