"""Checkpoints of tiny segmentors with random weights, as training writes them."""

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

import rass_mm

SCENES = DATASETS.get('ScenesDataset').METAINFO


def write_checkpoint(path, config, meta=None):
    """Writes a checkpoint with the random weights of a config, and its text; returns the path."""
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    meta = {'dataset_meta': {name: list(SCENES[name]) for name in ('classes', 'palette')}} if meta is None else meta
    torch.save({'state_dict': model.state_dict(), 'meta': {'cfg': config.pretty_text, **meta}}, path)
    return path


def shipped(name, **options):
    """A shipped config with options."""
    config = Config.fromfile(str(rass_mm.config_path(name)))
    config.merge_from_dict(options)
    return config
