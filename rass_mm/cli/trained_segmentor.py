"""Segmentors of `rass-mm segment` that need mmseg: checkpoints, and exported models with unusual test pipelines."""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from mmengine.registry import init_default_scope

from rass_mm.cli.preparation import preparation, prepared_identity
from rass_mm.cli.shards import card_of_process
from rass_mm.config import check_config_data
from rass_mm.config.building import named_parts
from rass_mm.devices import chosen_device
from rass_mm.export.exported_segmentor import ExportedSegmentor
from rass_mm.export.metadata import AGAIN, METADATA, Exported
from rass_mm.inference.loading import read_segmentor
from rass_mm.inference.modes import SegmentOptions
from rass_mm.inference.own_preparation import prepares_parts
from rass_mm.inference.segmentor import Segmentor

Job = tuple[Callable[[], Segmentor], dict[str, Any], Callable[[], AbstractContextManager]]
"""See `rass_mm.cli.segment.Job`."""


def trained_job(arguments: argparse.Namespace, options: SegmentOptions) -> Job:
    """Returns the job of a checkpoint.

    Raises:
        RassError: the checkpoint or an option cannot be used.
    """
    device = chosen_device(card_of_process(arguments))
    source = read_segmentor(arguments.checkpoint, arguments.config, arguments.base, arguments.cfg_options)
    own = prepares_parts(source.config)
    how = preparation(arguments, device, source.default_preparation(device), own)
    identity = {**source.identity(), **prepared_identity(how, device, own)}
    return lambda: source.build(device, how, options), identity, partial(named_parts, source.config, 'model')


def piped_job(exported: Exported, options: SegmentOptions) -> Job:
    """Returns the job of an exported model whose test pipeline has steps of mmseg.

    Raises:
        ConfigError: a step is not allowed in a config that is data.
    """
    classes = exported.metadata['classes']
    config = {'pipeline': classes['pipeline']}
    init_default_scope('mmseg')
    check_config_data(config, str(exported.folder / METADATA), remedy=AGAIN)

    def load() -> Segmentor:
        palette = [tuple(color) for color in classes['palette']]
        return Segmentor(ExportedSegmentor(exported), classes['pipeline'], classes['names'], palette, options)

    return load, exported.identity(), partial(named_parts, config, 'model')
