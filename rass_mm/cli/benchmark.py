"""Command line of the benchmark."""

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rass_mm.analysis.speed.variants import Variant


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm benchmark`."""
    from mmengine.config import DictAction

    parser.add_argument('config', help='a config file, or the name of a shipped one, e.g. rass/rass_scenes_tiny.py')
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
        '--windows', type=_positive, metavar='N', help="windows of one image at a time (default: the config's)"
    )
    parser.add_argument('--batch', type=_positive, default=1, metavar='N', help='images at a time (default: 1)')
    parser.add_argument(
        '--size', type=_size, default=(512, 512), metavar='HxW', help='of the images (default: 512x512)'
    )
    parser.add_argument('--iterations', type=_positive, default=10, help='passes that count (default: 10)')
    parser.add_argument('--warmup', type=_positive, default=2, help='passes before (default: 2)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: cuda if there is one, else cpu)')
    parser.add_argument('--threads', type=_positive, help="CPU threads (default: PyTorch's)")
    parser.add_argument('--seed', type=int, default=0, help='of images and fresh weights (default: 0)')
    parser.add_argument('--out', type=Path, help='folder for benchmark.json and benchmark.md')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides of CONFIG, key=value, nested keys with dots'
    )
    parser.set_defaults(run=run)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 1 on')
    return int(text)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', text)
    if found is None:
        raise argparse.ArgumentTypeError(f'{text!r} is no size; HxW is needed, e.g. 512x512')
    return int(found[1]), int(found[2])


def chosen_variants(arguments: argparse.Namespace) -> list['Variant']:
    """The variants that a command line asks for, the reference first.

    Raises:
        ConfigError: an unknown dtype, a text that is no variant, or two variants of one name.
    """
    from rass_mm.analysis.speed.variants import Variant, check_names, parse_variant

    options = {name: getattr(arguments, name) for name in ('dtype', 'compile', 'channels_last', 'windows')}
    first = Variant(
        Path(arguments.config).stem,
        arguments.config,
        arguments.checkpoint,
        overrides=arguments.cfg_options or {},
        **options,
    )
    others = [Variant(Path(config).stem, config, **options) for config in arguments.against]
    variants = [first, *others, *(parse_variant(text, first) for text in arguments.variant)]
    check_names(variants)
    return variants


def run(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes them where asked; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: something the user can mend.
    """
    from rass_mm.analysis.speed.report import markdown, write

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        record = benchmark(arguments)
    except KeyboardInterrupt:
        Console(stderr=True).print('Interrupted; nothing was written.')
        return 130
    Console().print(markdown(record), markup=False, highlight=False, soft_wrap=True)
    if arguments.out:
        write(record, arguments.out)
    return 0


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs what the command line asks for; returns the record, see `rass_mm.analysis.speed.report`."""
    import torch

    import rass_mm  # noqa: F401  (registers everything the configs name)
    from rass_mm.analysis.speed.ceiling import measured_ceiling
    from rass_mm.analysis.speed.job import Job
    from rass_mm.analysis.speed.measure import measure, passes
    from rass_mm.analysis.speed.models import Models
    from rass_mm.analysis.speed.report import record
    from rass_mm.cli.restore import chosen_device
    from rass_mm.engine.records import command_line

    variants = chosen_variants(arguments)
    device = chosen_device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with progress() as bar:
        reading = bar.add_task('models', total=len(variants))
        models, jobs = Models(device, arguments.seed), []
        for variant in variants:
            jobs.append(Job(variant, models, arguments.size, arguments.batch, arguments.seed))
            bar.advance(reading)
        models.forget_sources()
        dtypes = list(dict.fromkeys(variant.dtype for variant in variants))
        ceilings = {
            dtype: measured_ceiling(device, dtype)
            for dtype in bar.track(dtypes, total=len(dtypes), description='ceiling')
        }
        running = bar.add_task('passes', total=passes(len(jobs), arguments.iterations, arguments.warmup))
        found = measure(jobs, arguments.iterations, arguments.warmup, lambda: bar.advance(running))
    command = {'command': command_line(), 'seed': arguments.seed}
    return record(jobs, found, ceilings, {**command, 'iterations': arguments.iterations, 'warmup': arguments.warmup})


def progress() -> Any:
    """A bar per step on the terminal; nothing where there is none."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tools/benchmark.py`; returns its exit status."""
    from rass_mm.cli.main import guarded

    return guarded(
        add_arguments(argparse.ArgumentParser(description='Times configs, stage by stage.')).parse_args(argv)
    )
