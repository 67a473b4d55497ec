"""Options --ray and --ray-actors of the commands that process many images."""

import argparse
import os
import re
from collections.abc import Mapping
from typing import Any

from rass_mm.cli.options import integer
from rass_mm.cli.shards import AUTO
from rass_mm.errors import ConfigError, clipped
from rass_mm.files.optional import import_optional
from rass_mm.jobs.part import differing
from rass_mm.jobs.variables import RANK
from rass_mm.parallel import Pool

LOCAL, CLUSTER = 'local', 'auto'
"""Addresses of Ray that are no host and port."""


def add_ray(parser: argparse.ArgumentParser, kind: str) -> None:
    """Adds the options --ray and --ray-actors. `kind` is the default number of processes, for the help text."""
    parser.add_argument(
        '--ray',
        type=_address,
        metavar='ADDRESS',
        help='spread the images over processes of Ray: local starts it on this machine, auto or HOST:PORT joins a '
        'running cluster, whose machines need the same paths (default: no Ray)',
    )
    parser.add_argument(
        '--ray-actors', type=integer(1, 10**5), metavar='N', help=f'number of processes with --ray (default: {kind})'
    )


def _address(text: str) -> str:
    found = re.fullmatch(r'[\w.-]+:(\d{1,5})|\[[0-9a-fA-F:]+\]:(\d{1,5})', text)
    if text in (LOCAL, CLUSTER) or (found and 0 < int(found[1] or found[2]) < 2**16):
        return text
    raise argparse.ArgumentTypeError(f'{clipped(text, 40)!r} is not {LOCAL}, {CLUSTER} or HOST:PORT')


def chosen_pool(arguments: argparse.Namespace, cards: bool = False) -> Pool | None:
    """Returns the pool that the options choose, or None without --ray. Ray is started when the pool is used.

    Args:
        arguments: the parsed command line.
        cards: whether the command can use GPUs.

    Raises:
        ConfigError: the options do not suit each other.
        InstallationError: Ray is not installed.
    """
    if arguments.ray is None:
        if arguments.ray_actors is not None:
            raise ConfigError(f'--ray-actors {arguments.ray_actors} needs a cluster. Set --ray, or remove it.')
        return None
    if arguments.shards == AUTO and RANK in os.environ:
        raise ConfigError('torchrun starts processes, and --ray does too. Give the command without torchrun.')
    device = getattr(arguments, 'device', None)
    if cards and device not in (None, 'cpu', 'cuda'):
        raise ConfigError(f'Ray assigns the cards to processes. Use --device cpu or cuda instead of {device}.')
    module = import_optional('rass_mm.jobs.ray.pool', '--ray', 'ray')
    return module.RayPool(arguments.ray, arguments.ray_actors, cards and device != 'cpu')


def picklable(arguments: argparse.Namespace) -> argparse.Namespace:
    """Returns the arguments for a process of a pool, without the function that runs the command."""
    return argparse.Namespace(**{name: value for name, value in vars(arguments).items() if name != 'run'})


def check_same(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Checks that a process of a pool has found the model of the command.

    Raises:
        ConfigError: the identities differ.
    """
    if found != expected:
        raise ConfigError(
            f'The model differs from that of the command:\n{differing(expected, found)}\nAll machines need the same '
            'files. If only the precision differs, set --dtype.'
        )
