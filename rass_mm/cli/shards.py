"""Options --shards, --shard and --pack of the commands that process many images."""

import argparse
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch

from rass_mm.cli.options import integer
from rass_mm.errors import ConfigError
from rass_mm.files.containers.kinds import KINDS
from rass_mm.jobs.commands import Command
from rass_mm.jobs.shard import MOST, Shard
from rass_mm.jobs.torchrun import ended_together
from rass_mm.jobs.variables import LOCAL_RANK, RANK, detected_shard

logger = logging.getLogger(__name__)

AUTO = 'auto'


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Adds the options --shards and --shard."""
    parser.add_argument(
        '--shards',
        type=_shards,
        metavar='N',
        help='divide the images among N runs with the same output folder, of which this is one: a number, or auto for '
        'the variables of a SLURM array, of torchrun or of an indexed job of Kubernetes; see rass-mm jobs '
        '(default: one run for all images)',
    )
    parser.add_argument(
        '--shard', type=integer(0, MOST - 1), metavar='I', help='number of this run, from 0 to N-1; with --shards N'
    )


def add_pack(parser: argparse.ArgumentParser) -> None:
    """Adds the option --pack."""
    parser.add_argument(
        '--pack',
        choices=KINDS,
        help='write the outputs to tar files (as for WebDataset) or Parquet files (columns path and bytes) in OUT '
        '(default: one file per output)',
    )


def _shards(text: str) -> str | int:
    if text == AUTO:
        return text
    try:
        return integer(1, MOST)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f'{error}, and not {AUTO}') from None


def chosen_shard(arguments: argparse.Namespace) -> Shard | None:
    """Returns the shard that the options choose, and logs it. Returns None without --shards.

    Raises:
        ConfigError: the options do not suit each other, or the environment variables for `auto` are not set.
    """
    shards, number = arguments.shards, arguments.shard
    command = _command(arguments)
    if shards is None:
        if number is not None:
            raise ConfigError(f'--shard {number} needs the number of shards. Set --shards N, or remove --shard.')
        return None
    if shards == AUTO:
        if number is not None:
            raise ConfigError(f'--shards {AUTO} finds the shard itself. Remove --shard {number}, or set --shards N.')
        shard, variable = detected_shard()
        logger.info('Shard %d of %d (the first is 0), from %s', shard.number, shard.count, variable)
        return replace(shard, command=command)
    if number is None:
        raise ConfigError(f'--shards {shards} needs the number of this shard. Set --shard I, from 0 to {shards - 1}.')
    shard = Shard(number, shards, command)
    logger.info('Shard %d of %d (the first is 0)', shard.number, shard.count)
    return shard


def _command(arguments: argparse.Namespace) -> Command | None:
    """Returns the command of this process, or None if the arguments were not parsed from a command line."""
    given = getattr(arguments, 'command_line', None)
    return given and Command(*given, os.getcwd())


def card_of_process(arguments: argparse.Namespace) -> str | None:
    """Returns the device that --device names. Without it, a process of torchrun gets the card with its local number."""
    launched = arguments.shards == AUTO and RANK in os.environ and LOCAL_RANK in os.environ
    if arguments.device is None and launched and torch.cuda.is_available():
        return f'cuda:{os.environ[LOCAL_RANK]}'
    return arguments.device


@contextmanager
def ending_with_the_others(arguments: argparse.Namespace) -> Iterator[None]:
    """Context manager for the run of a shard. If torchrun started it, a failure waits for the end of the other runs."""
    with ended_together() if arguments.shards == AUTO else nullcontext():
        yield
