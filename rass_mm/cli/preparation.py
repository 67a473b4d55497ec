"""Options of the commands that predict with a prepared model: `segment`, `restore` and `test`."""

import argparse
import logging
from typing import Any

import torch

from rass_mm.cli.options import add_dtype
from rass_mm.engine.ready import Preparation, chosen_preparation

logger = logging.getLogger(__name__)


def add_preparation(parser: argparse.ArgumentParser, dtype: str) -> None:
    """Adds the options --dtype, --compile and --deterministic. `dtype` describes the default for the help text."""
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


def preparation(
    arguments: argparse.Namespace, device: torch.device, default: Preparation | None = None, own: bool = True
) -> Preparation | None:
    """Returns how the model is prepared, or None for not at all, and logs it.

    Args:
        arguments: the options of the command.
        device: the device of the model.
        default: the settings if the user has chosen none.
        own: whether a part of the model has a method `prepare_prediction`.
    """
    how = chosen_preparation(arguments.dtype, arguments.compile, arguments.deterministic, default)
    plain = f'float32 on {device}, network as trained' + ', deterministic' * arguments.deterministic
    logger.info('Precision: %s', how.described(device, own) if how else plain)
    return how


def prepared_identity(how: Preparation | None, device: torch.device, own: bool = True) -> dict[str, Any]:
    """Returns the values that identify a preparation in a manifest. `own` is that of `preparation`."""
    return {'dtype': how.dtype if how else 'float32', 'prepared': how.record(device, own) if how else None}
