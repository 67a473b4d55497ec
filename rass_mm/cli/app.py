"""`rass-mm app`: serves a web page that degrades, restores and segments images."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np

from rass_mm.app.limits import Limits
from rass_mm.app.models import ModelFiles, load_models
from rass_mm.app.server import is_local, serving
from rass_mm.cli.options import DEFAULT_DTYPE, add_device, add_dtype, add_max_pixels, integer, number, positive
from rass_mm.demo.scenes.generator import make_scene, scene_seed
from rass_mm.demo.trained import TrainedModels, trained_models
from rass_mm.errors import ConfigError

logger = logging.getLogger(__name__)

EXAMPLES = 8
FILES = ('adapter', 'base', 'checkpoint', 'config', 'baseline', 'baseline_config')


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm app`."""
    _add_models(parser)
    _add_limits(parser)
    _add_address(parser)
    add_device(parser)
    add_dtype(parser, f'for models with a full-size base {DEFAULT_DTYPE}; otherwise float32')
    parser.set_defaults(run=run)
    return parser


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--demo',
        type=Path,
        help='folder of a demo whose models are used if no others are given (default: demo_out)',
    )
    parser.add_argument('--adapter', type=Path, help='adapter file (scr_*.safetensors) or pack of a restorer')
    parser.add_argument(
        '--base',
        type=Path,
        help='Stable Diffusion folder of both models (default for the segmentor: the one in its config; for '
        'packs: their own)',
    )
    parser.add_argument('--checkpoint', type=Path, help='checkpoint or pack of a trained segmentor')
    parser.add_argument('--config', help='config of the segmentor (default: the one in its checkpoint)')
    parser.add_argument(
        '--baseline', type=Path, help='checkpoint or pack of a second segmentor, shown beside the first'
    )
    parser.add_argument('--baseline-config', help='config of the baseline (default: the one in its checkpoint)')


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    add_max_pixels(parser, limits.max_pixels)
    parser.add_argument(
        '--max-megabytes',
        type=integer(1, 10**5),
        default=limits.max_megabytes,
        metavar='N',
        help=f'maximum size of a file in MB (default: {limits.max_megabytes})',
    )
    parser.add_argument(
        '--max-files',
        type=positive,
        default=limits.max_files,
        metavar='N',
        help=f'maximum number of images in a folder (default: {limits.max_files})',
    )
    parser.add_argument(
        '--keep',
        type=number(0.01, 10**5),
        default=limits.keep,
        metavar='MINUTES',
        help=f'minutes after which uploads and results are removed (default: {limits.keep:g})',
    )


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to listen at (default: 127.0.0.1, this computer only)'
    )
    parser.add_argument(
        '--host-name',
        metavar='NAME',
        help='public name of a proxy with a password in front of the app, or another name of this computer; requests '
        'with other host names are refused',
    )
    parser.add_argument(
        '--port',
        type=integer(0, 65535),
        default=7860,
        help='port; 0 takes the first free one from 7860 (default: 7860)',
    )


def run(arguments: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C or a signal to terminate; returns 0.

    Raises:
        RassError: a model or the address cannot be used.
    """
    logging.basicConfig(level=logging.WARNING, format='%(message)s')
    limits = Limits(arguments.max_pixels, arguments.max_megabytes, arguments.max_files, arguments.keep)
    models = load_models(model_files(arguments), arguments.device, arguments.dtype)
    if not is_local(arguments.host):
        logger.warning('The page has no password: everyone who can reach %s can use it.', arguments.host)
    place = arguments.host, arguments.port, arguments.host_name
    with _stopped_by_signals() as stopped, serving(models, limits, scenes(), *place) as address:
        sys.stdout.write(f'The page is at {address} (Ctrl-C ends it).\n')
        sys.stdout.flush()
        while not stopped.wait(1):
            pass
    sys.stdout.write('Stopped. Uploads and results were removed.\n')
    sys.stdout.flush()
    if models.lock.locked():
        os._exit(0)  # a thread still computes; it cannot be stopped, and the interpreter would abort
    return 0


def model_files(arguments: argparse.Namespace) -> ModelFiles:
    """Returns the files of the models: those of the options, or else those of a demo.

    Raises:
        ConfigError: there is neither, or both are given.
    """
    given = {name: getattr(arguments, name) for name in FILES if getattr(arguments, name) is not None}
    if given and arguments.demo:
        names = ', '.join('--' + name.replace('_', '-') for name in given)
        raise ConfigError(f'--demo cannot be combined with {names}. Remove one of them.')
    if given:
        return ModelFiles(**given)
    found: TrainedModels = trained_models(arguments.demo or Path('demo_out'))
    return ModelFiles(found.adapter, found.base, found.checkpoint, baseline=found.baseline)


def scenes() -> list[np.ndarray]:
    """Draws the example scenes, (128, 128, 3) uint8 RGB."""
    return [make_scene(scene_seed(0, 'app', index))[0][..., ::-1] for index in range(EXAMPLES)]


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Context manager. Yields an event that Ctrl-C or a signal to terminate sets inside the block."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
