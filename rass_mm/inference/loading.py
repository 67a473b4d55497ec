"""Loading of trained segmentors: checkpoint, config, base and weights."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from rass_mm.config import config_from_checkpoint, load_config
from rass_mm.config.building import explained
from rass_mm.config.loading import merge_options
from rass_mm.config.parts import dicts
from rass_mm.datasets.classes import follow_classes
from rass_mm.devices import chosen_device
from rass_mm.engine.checkpoints import checked_checkpoint, load_local
from rass_mm.engine.packed import packed_checkpoint
from rass_mm.engine.ready import chosen_preparation
from rass_mm.engine.structure import check_classes
from rass_mm.errors import AdapterError, CheckpointError, ConfigError
from rass_mm.files.packs.reading import Pack, is_pack, open_pack
from rass_mm.files.packs.schema import SEGMENTOR, WEIGHTS
from rass_mm.inference.modes import SegmentOptions
from rass_mm.inference.packs.configs import packed_config, use_pack
from rass_mm.inference.packs.segmentors import save_segmentor
from rass_mm.inference.precision import Bases
from rass_mm.inference.segmentor import Segmentor
from rass_mm.inference.source import ADAPTERS, SegmentorSource, load_weights, nested

__all__ = ['Segmentor', 'SegmentorSource', 'load_segmentor', 'load_weights', 'read_segmentor']


def read_segmentor(
    checkpoint: str | os.PathLike,
    config: str | os.PathLike | Config | None = None,
    base: Bases | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> SegmentorSource:
    """Reads a checkpoint and its config without building the model.

    Args:
        checkpoint: a file written by training or by `rass-mm convert`, or the folder of a pack.
        config: a config, a config file, or the name of a config in this package. None reads the config that is stored
            in the checkpoint, which is parsed as data and never executed, see `config_from_checkpoint`.
        base: base folder, or several folders in order of preference; replaces the base in the config.
        overrides: config values by dotted key, e.g. `{'model.test_cfg.mode': 'whole'}`.

    Raises:
        CheckpointError: the checkpoint cannot be read safely.
        ConfigError: the config is missing, cannot be read safely or has no model; or `base` is given, but the model
            has no base.
        AdapterError: an adapter file that the config names does not exist.
        PackError, BaseFolderError: the pack was changed or is not that of a segmentor, or its base was not found.
    """
    path = Path(checkpoint).expanduser()
    if is_pack(path):
        return _read_packed(open_pack(path, SEGMENTOR), config, base, overrides)
    loaded = load_local(path, 'cpu')
    if not isinstance(loaded, dict):
        raise CheckpointError(f'{path} contains a {type(loaded).__name__}, but a checkpoint must be a dict.')
    check_classes(loaded, str(path))
    if config is None:
        content = config_from_checkpoint(loaded, str(path))
    else:
        content = config if isinstance(config, Config) else load_config(config)
        with explained(content, 'model'):
            follow_classes(content)
    if overrides:
        merge_options(content, overrides)
    if not isinstance(content.get('model'), Mapping):
        source = f' ({content.filename})' if content.filename else ''
        raise ConfigError(
            f'The config of {path}{source} has no model. Pass the config that the model was trained with.'
        )
    if base is not None:
        _set_base(content.model, base)
    _check_adapters(content.model, path)
    return SegmentorSource(path, loaded, content)


def _read_packed(
    pack: Pack,
    config: str | os.PathLike | Config | None,
    base: Bases | None,
    overrides: Mapping[str, Any] | None,
) -> SegmentorSource:
    if config is not None:
        raise ConfigError(f'{pack.folder} is a pack, which contains its config. Remove config (--config).')
    content = packed_config(pack)
    if overrides:
        merge_options(content, overrides)
    settings = content.model.to_dict()
    use_pack(content.model, pack, base is None)
    if base is not None:
        _set_base(content.model, base)
    _check_adapters(content.model, pack.folder)
    weights = pack.path(WEIGHTS)
    return SegmentorSource(weights, checked_checkpoint(packed_checkpoint(pack), str(weights)), content, pack, settings)


def load_segmentor(
    checkpoint: str | os.PathLike,
    config: str | os.PathLike | Config | None = None,
    base: Bases | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    options: SegmentOptions | None = None,
    compile: bool = False,
    deterministic: bool = False,
) -> Segmentor:
    """Loads a trained segmentor, which can be any mmseg segmentor, for images of any size.

    Args:
        checkpoint: see `read_segmentor`.
        config: see `read_segmentor`.
        base: see `read_segmentor`.
        device: e.g. 'cpu' or 'cuda:1'; None uses the first one of CUDA, MPS and the CPU.
        dtype: 'float32', 'bfloat16' or 'float16', or the torch dtype of this name; None uses that of
            `SegmentorSource.default_preparation`.
        options: see `SegmentOptions`; None uses its defaults.
        compile: whether to compile the network with `torch.compile`, which takes minutes on a CPU.
        deterministic: whether to compute in float32 with the network as it was trained. PyTorch's deterministic
            algorithms are then used in the whole process, see `chosen_preparation`.

    Raises:
        CheckpointError, ConfigError, BaseFolderError, AdapterError: see `read_segmentor` and `SegmentorSource.build`.
    """
    place = chosen_device(None if device is None else str(device))
    source = read_segmentor(checkpoint, config, base)
    how = chosen_preparation(dtype, compile, deterministic, source.default_preparation(place))
    segmentor = source.build(place, how, options)

    def save(folder: str | os.PathLike, **settings: Any) -> Path:  # the file is read again, instead of kept in memory
        return save_segmentor(read_segmentor(checkpoint, config, base), folder, **settings)

    segmentor.saver = save
    return segmentor


Segmentor.loader = staticmethod(load_segmentor)


def _check_adapters(model: ConfigDict, checkpoint: Path) -> None:
    for key, part in dicts(model.to_dict(), 'model'):
        for name in ADAPTERS:
            file = part.get(name)
            if isinstance(file, str) and not Path(file).expanduser().is_file():
                raise AdapterError(
                    f'{checkpoint} needs the adapter file {file} ({key}.{name} in its config), which does not exist. '
                    f'If it was moved, pass its new path with --cfg-options {key}.{name}=FILE (in Python: '
                    f"read_segmentor(..., overrides={{'{key}.{name}': FILE}}))."
                )


def _set_base(model: ConfigDict, base: Bases) -> None:
    parts = [part for part in nested(model) if 'base' in part]
    if not parts:
        raise ConfigError(f'A base was given, but the model ({model.get("type")}) has none. Remove base (--base).')
    folders = [base] if isinstance(base, str | os.PathLike) else base
    for part in parts:
        part['base'] = [os.fspath(folder) for folder in folders]
