"""Options and option types shared by the commands."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from rass_mm.degradation.recipe import OSEDIFF, VERSIONS
from rass_mm.devices import DTYPES
from rass_mm.errors import InstallationError, clipped
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.files.optional import import_optional
from rass_mm_cli.catalog import located
from rass_mm_cli.extras import SEGMENTATION

DEFAULT_DTYPE = 'bfloat16 if the device has instructions for it, else float32'
LARGEST, LONGEST = 10**12, 20
"""Largest integer of an option, and the characters of a wrong value in a message."""
INTERRUPTED = 130
"""Exit status after Ctrl-C."""
Job = TypeVar('Job')


class LateOverrides(argparse.Action):
    """Action of --cfg-options, which is imported when the option is used, see `rass_mm.cli.overrides`."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Adds the values to those of earlier options."""
        try:
            module = import_optional('rass_mm.cli.overrides', '--cfg-options', SEGMENTATION)
        except InstallationError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        action = module.OverrideAction(self.option_strings, self.dest, nargs=self.nargs)
        action(parser, namespace, values, option)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds the argument CONFIG."""
    parser.add_argument('config', help='config file, or name of a shipped config, e.g. rass/rass_scenes_tiny.py')


def add_overrides(
    parser: argparse.ArgumentParser, help: str = 'config overrides as key=value, with dots in nested keys'
) -> None:
    """Adds the option --cfg-options."""
    parser.add_argument('--cfg-options', nargs='+', action=LateOverrides, metavar='KEY=VALUE', help=help)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds the option --device."""
    parser.add_argument(
        '--device', help='cpu, cuda, cuda:1, mps, ... (default: the first one available of cuda, mps and cpu)'
    )


def add_dtype(parser: argparse.ArgumentParser, default: str = DEFAULT_DTYPE) -> None:
    """Adds the option --dtype. `default` describes the default for the help text."""
    parser.add_argument('--dtype', choices=DTYPES, help=f'precision (default: {default})')


def add_max_pixels(parser: argparse.ArgumentParser, default: int = MAX_PIXELS) -> None:
    """Adds the option --max-pixels."""
    parser.add_argument(
        '--max-pixels',
        type=positive,
        default=default,
        metavar='N',
        help=f'maximum number of pixels per image; larger images are reported and not decoded (default: {default}, '
        f'about {default / 1e6:.0f} megapixels)',
    )


def add_restorer(parser: argparse.ArgumentParser) -> None:
    """Adds the options --adapter and --base of a trained restorer."""
    parser.add_argument(
        '--adapter',
        type=Path,
        required=True,
        help='adapter file of the trained restorer, scr_*.safetensors, or its pack (a folder)',
    )
    parser.add_argument(
        '--base', type=Path, help='Stable Diffusion folder that the adapter was trained on (default: that of the pack)'
    )


def add_autoencoder(parser: argparse.ArgumentParser) -> None:
    """Adds the options --autoencoder and --autoencoder-ends of a restorer."""
    parser.add_argument(
        '--autoencoder',
        type=located,
        help="folder of a tiny autoencoder that replaces the VAE's decoder, or taesd after rass-mm fetch taesd",
    )
    parser.add_argument(
        '--autoencoder-ends',
        choices=('decoder', 'both'),
        default='decoder',
        help='parts of the VAE that the tiny autoencoder replaces (default: decoder)',
    )


def add_recipe_version(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Adds the option --recipe-version.

    Args:
        parser: the parser to extend.
        purpose: words that follow 'version 1' in the help text and state its use.
    """
    parser.add_argument(
        '--recipe-version',
        type=int,
        choices=VERSIONS,
        default=OSEDIFF.version,
        help=f'version of the degradation recipe; version 1 {purpose} (default: {OSEDIFF.version})',
    )


def finish_job(job: Callable[[], Job], summary: Callable[[Job], str]) -> int:
    """Runs a job that can be resumed and prints its summary; returns the exit status (130 after Ctrl-C)."""
    try:
        done = job()
    except KeyboardInterrupt:
        Console(stderr=True).print('Interrupted. Finished images are kept; run the same command again to resume.')
        return INTERRUPTED
    Console().print(summary(done), markup=False, highlight=False, soft_wrap=True)
    return 0


def integer(least: int, most: int) -> Callable[[str], int]:
    """Returns an option type for integers in a range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f'{clipped(text, LONGEST)!r} is not an integer from {least} to {most}')
        return value

    return parse


def number(least: float, most: float, above: bool = False) -> Callable[[str], float]:
    """Returns an option type for numbers in a range. With `above`, the number must be greater than `least`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least < value <= most if above else least <= value <= most):  # also if it is NaN
            words = f'greater than {least:g} and at most' if above else f'from {least:g} to'
            raise argparse.ArgumentTypeError(f'{clipped(text, LONGEST)!r} is not a number {words} {most:g}')
        return value

    return parse


def positive(text: str) -> int:
    """Parses a positive integer from the command line."""
    try:
        return integer(1, LARGEST)(text)
    except argparse.ArgumentTypeError:
        rule = '' if len(text) <= LONGEST else f' up to {LARGEST}'
        raise argparse.ArgumentTypeError(f'{clipped(text, LONGEST)!r} is not a positive integer{rule}') from None


count, side, workers = integer(1, 10**6), integer(1, 2**16), integer(1, 256)
"""Option types of numbers of steps or images, sides in pixels, and numbers of processes."""
seed = integer(0, 2**32 - 1)
"""Option type of random seeds; NumPy accepts no others."""


def size(text: str) -> tuple[int, int]:
    """Parses a size of the form 'HxW' from the command line to (height, width)."""
    found = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if found is None:
        raise argparse.ArgumentTypeError(f'{text!r} is not a size; expected HxW, e.g. 512x512')
    return int(found[1]), int(found[2])


def names(text: str) -> list[str]:
    """Parses a comma-separated list of names from the command line; empty names are dropped."""
    return [name.strip() for name in text.split(',') if name.strip()]


def given(arguments: argparse.Namespace, options: tuple[str, ...]) -> dict[str, Any]:
    """Returns a dict with the names and values of those `options` that are set on the command line."""
    return {name: getattr(arguments, name) for name in options if getattr(arguments, name) is not None}
