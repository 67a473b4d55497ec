"""Fine-tuning of a trained segmentor on other classes, with the setting `fine_tune` of a config."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmseg.registry import MODELS

from rass_mm.config.kinds import as_list
from rass_mm.datasets.classes import HEADS, segmentor_parts
from rass_mm.engine.checkpoints import SUFFIXES
from rass_mm.engine.remote import ADDRESS, refuse_remote
from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.files.newest import files_in


def check_fine_tuning(config: dict[str, Any]) -> None:
    """Raises a ConfigError if a config sets both `fine_tune` and `load_from`."""
    if config.get('fine_tune') and config.get('load_from'):
        raise ConfigError(
            f'The config sets both fine_tune={config["fine_tune"]!r} and load_from={config["load_from"]!r}. Remove '
            f'load_from. fine_tune loads all tensors except those that depend on the classes.'
        )


def check_fine_tuning_file(config: dict[str, Any]) -> None:
    """Raises a CheckpointError if the file of `fine_tune` does not exist, is a folder, or is given as a URL."""
    path = config.get('fine_tune')
    if not path:
        return
    if ADDRESS.match(str(path)):
        refuse_remote(str(path))
    if Path(path).expanduser().is_dir():
        raise CheckpointError(f'fine_tune: {path} is a folder. {files_in(Path(path).expanduser(), SUFFIXES)}')
    if not Path(path).expanduser().is_file():
        raise CheckpointError(
            f'fine_tune: {path} does not exist. Set it to a checkpoint of a trained segmentor, or to None to start '
            'from new weights.'
        )


def use_fine_tuning(config: dict[str, Any]) -> None:
    """Sets up a config with `fine_tune=CHECKPOINT` to load all tensors that do not depend on the classes.

    The function sets `init_cfg` of the segmentor in place. mmengine loads these weights when training starts. They are
    not loaded in tests, and in a resumed run, the checkpoint of the run replaces them. A config without `fine_tune` is
    not changed.

    Raises:
        ConfigError: the model has no decode head.
    """
    checkpoint = config.get('fine_tune')
    if not checkpoint:
        return
    segmentor = next((part for _, part in segmentor_parts(config.get('model')) if part.get('decode_head')), None)
    if segmentor is None:
        raise ConfigError(
            'fine_tune needs a segmentor with a decode head, but the model of this config has none. To start a '
            'restorer from another one, set model.start=ADAPTER_FILE.'
        )
    fresh = sorted(class_tensors(segmentor))
    segmentor['init_cfg'] = {'type': 'Pretrained', 'checkpoint': str(checkpoint), 'fresh': fresh}


def class_tensors(segmentor: dict[str, Any]) -> Iterator[str]:
    """Yields the names of a segmentor's tensors whose shape depends on the number of classes.

    Args:
        segmentor: config of the segmentor. Each head is built with 7 and with 8 classes to compare the shapes.
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
    if 'channels' in head:  # mmseg's own heads, whose `out_channels` is the number of classes
        head.pop('out_channels', None)
    with torch.random.fork_rng(devices=[]):
        return {key: value.shape for key, value in MODELS.build(head).state_dict().items()}
