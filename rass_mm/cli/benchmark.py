"""`rass-mm benchmark` and `tools/benchmark.py`: speed of configs in images per second, with the time of each stage."""

import argparse
import logging
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from rass_mm.analysis.speed.report import markdown, write
from rass_mm.analysis.speed.run import benchmark
from rass_mm.cli.options import INTERRUPTED, add_config, add_device, add_overrides, count, integer, positive, seed, size
from rass_mm.files.locks import held


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm benchmark`."""
    add_config(parser)
    parser.add_argument(
        'checkpoint', nargs='?', help='checkpoint file (default: random weights, which run at the same speed)'
    )
    parser.add_argument(
        '--against',
        nargs='+',
        default=[],
        metavar='CONFIG',
        help='more configs to run with the same options, in alternating passes with CONFIG',
    )
    parser.add_argument(
        '--variant',
        action='append',
        default=[],
        help="another variant to run: 'NAME: CONFIG [CHECKPOINT] dtype=bfloat16 compile=1 prepared=0 windows=4 "
        "model.some.key=value', where options that you omit have the values of the options below; 'NAME: FOLDER' with "
        "an exported model; or 'released', which runs the first config like the released code: float32, unprepared, "
        'one window at a time',
    )
    parser.add_argument('--dtype', default='float32', help='float32, bfloat16 or float16 (default: float32)')
    parser.add_argument(
        '--compile', action='store_true', help='compile the most expensive modules with torch.compile (slow start)'
    )
    parser.add_argument(
        '--channels-last',
        action='store_true',
        default=None,
        help='use the channels-last layout (default: with packed weights, which a CPU uses, and in half precision)',
    )
    parser.add_argument(
        '--windows', type=positive, metavar='N', help='windows of an image per batch (default: as in the config)'
    )
    parser.add_argument('--batch', type=positive, default=1, metavar='N', help='images per pass (default: 1)')
    parser.add_argument('--size', type=size, default=(512, 512), metavar='HxW', help='image size (default: 512x512)')
    parser.add_argument('--iterations', type=count, default=10, help='timed passes (default: 10)')
    parser.add_argument('--warmup', type=count, default=2, help='warm-up passes (default: 2)')
    add_device(parser)
    parser.add_argument('--threads', type=integer(1, 1024), help="CPU threads (default: PyTorch's)")
    parser.add_argument('--seed', type=seed, default=0, help='seed of images and random weights (default: 0)')
    parser.add_argument('--out', type=Path, help='folder for benchmark.json and benchmark.md')
    add_overrides(parser, 'overrides of CONFIG as key=value, with dots in nested keys')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs the benchmark, prints the tables and writes them to --out; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: an error that the user can fix.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    with held(arguments.out) if arguments.out else nullcontext():
        try:
            record = benchmark(arguments)
        except KeyboardInterrupt:
            Console(stderr=True).print('Interrupted; nothing was written.')
            return INTERRUPTED
        Console().print(markdown(record), markup=False, highlight=False, soft_wrap=True)
        if arguments.out:
            write(record, arguments.out)
    return 0
