"""Options of the commands that predict with a prepared model: `segment`, `restore` and `test`."""

import argparse
import logging
from typing import Any

import torch

from rass_mm.cli.options import DEFAULT_DTYPE, add_dtype
from rass_mm.engine.ready import Preparation, chosen_preparation

logger = logging.getLogger(__name__)


def add_preparation(parser: argparse.ArgumentParser, dtype: str = DEFAULT_DTYPE) -> None:
    """Adds the options --dtype, --compile and --deterministic, see `preparation`."""
    add_dtype(parser, dtype)
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile the network with torch.compile, which takes minutes; for many images of one size',
    )
    parser.add_argument(
        '--deterministic',
        action='store_true',
        help='compute in float32 with the network as it was trained: bit-equal in every run, and slower',
    )


def preparation(arguments: argparse.Namespace, device: torch.device, dtype: str | None = None) -> Preparation | None:
    """Returns how the model is prepared, or None for --deterministic, and logs it. `dtype` is the default."""
    how = chosen_preparation(device, arguments.dtype, arguments.compile, arguments.deterministic, dtype)
    plain = f'float32 on {device}, deterministic, network as trained'
    logger.info('Precision: %s', how.described(device) if how else plain)
    return how


def prepared_identity(how: Preparation | None, device: torch.device) -> dict[str, Any]:
    """Returns the values that identify a preparation in a manifest."""
    return {'dtype': how.dtype if how else 'float32', 'prepared': how.record(device) if how else None}
