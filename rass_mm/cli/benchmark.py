"""`rass-mm benchmark` and `tools/benchmark.py`: images per second of configs, by stage."""

import argparse
import logging
from pathlib import Path

from rich.console import Console

from rass_mm.analysis.speed.report import markdown, write
from rass_mm.analysis.speed.run import benchmark
from rass_mm.cli.options import INTERRUPTED, add_config, add_device, add_overrides, positive, size


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm benchmark`."""
    add_config(parser)
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file (default: fresh weights, which are as fast)')
    parser.add_argument(
        '--against', nargs='+', default=[], metavar='CONFIG', help='more configs, run the same way, in turns with it'
    )
    parser.add_argument(
        '--variant',
        action='append',
        default=[],
        help="one more way to run, in turns with the others: 'NAME: CONFIG [CHECKPOINT] dtype=bfloat16 compile=1 "
        "channels_last=1 windows=4 model.some.key=value', where the options below hold if it has none; or 'released' "
        '(in the text: path=released): the first config as the released code runs it, float32, one window at a time, '
        'eager',
    )
    parser.add_argument('--dtype', default='float32', help='float32, bfloat16 or float16 (default: float32)')
    parser.add_argument('--compile', action='store_true', help='torch.compile of the heavy modules; slow to start')
    parser.add_argument('--channels-last', action='store_true', help='memory layout of images and convolutions')
    parser.add_argument(
        '--windows', type=positive, metavar='N', help="windows of one image at a time (default: the config's)"
    )
    parser.add_argument('--batch', type=positive, default=1, metavar='N', help='images at a time (default: 1)')
    parser.add_argument('--size', type=size, default=(512, 512), metavar='HxW', help='of the images (default: 512x512)')
    parser.add_argument('--iterations', type=positive, default=10, help='passes that count (default: 10)')
    parser.add_argument('--warmup', type=positive, default=2, help='passes before (default: 2)')
    add_device(parser)
    parser.add_argument('--threads', type=positive, help="CPU threads (default: PyTorch's)")
    parser.add_argument('--seed', type=int, default=0, help='of images and fresh weights (default: 0)')
    parser.add_argument('--out', type=Path, help='folder for benchmark.json and benchmark.md')
    add_overrides(parser, 'overrides of CONFIG, key=value, nested keys with dots')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes them where asked; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: something the user can mend.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        record = benchmark(arguments)
    except KeyboardInterrupt:
        Console(stderr=True).print('Interrupted; nothing was written.')
        return INTERRUPTED
    Console().print(markdown(record), markup=False, highlight=False, soft_wrap=True)
    if arguments.out:
        write(record, arguments.out)
    return 0
