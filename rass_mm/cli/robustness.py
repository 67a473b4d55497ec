"""Command line of the robustness curves."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rass_mm.degradation.recipe import OSEDIFF, VERSIONS
from rass_mm.degradation.severity import KINDS, parameter_text
from rass_mm.errors import ConfigError

if TYPE_CHECKING:
    from rass_mm.analysis.robustness.curve import Curve

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm robustness`."""
    from mmengine.config import DictAction

    parser.add_argument('config', nargs='?', help='config of a segmentor: a file, or the name of a shipped one')
    parser.add_argument('checkpoint', nargs='?', type=Path, help='its checkpoint')
    parser.add_argument('--out', type=Path, required=True, help='folder for the JSON, the table and the plot')
    parser.add_argument('--name', help="the model's name in table and plot, and of the files (default: the config's)")
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=list(KINDS), help='degradations (default: all)')
    parser.add_argument(
        '--severities',
        nargs='+',
        type=float,
        default=[0.0, 0.25, 0.5, 0.75, 1.0],
        help='0 (mild) to 1 (default: by quarters)',
    )
    parser.add_argument('--limit', type=int, help='test the first so many images only')
    parser.add_argument('--seed', type=int, default=0, help='of the draws; the same for models to compare (default: 0)')
    parser.add_argument(
        '--recipe-version',
        type=int,
        choices=VERSIONS,
        default=OSEDIFF.version,
        help=f'of the two-stage recipe; 1 continues and compares earlier tests (default: {OSEDIFF.version})',
    )
    parser.add_argument(
        '--compare', nargs='+', type=Path, default=[], metavar='JSON', help='earlier results to show beside this model'
    )
    parser.add_argument(
        '--plot', nargs='+', type=Path, metavar='JSON', help='test nothing: table and plot of earlier results'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides, key=value, nested keys with dots'
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Tests what is missing, writes table and plot and prints where; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: something the user can mend; the points tested so far are kept.
    """
    import rass_mm  # noqa: F401  (registers everything the configs name)
    from rass_mm.analysis.robustness.curve import check_comparable, read_curve

    logging.basicConfig(level=logging.INFO, format='%(message)s')
    if arguments.name and Path(arguments.name).name != arguments.name:
        raise ConfigError(f'--name {arguments.name!r} is part of file names: leave out slashes.')
    if arguments.plot:
        if arguments.config or arguments.compare:
            raise ConfigError('--plot tests nothing: give it JSON files, and no CONFIG, CHECKPOINT or --compare.')
        curves = [read_curve(path) for path in arguments.plot]
        check_comparable(curves)
        return write_report(arguments.out, arguments.name or 'robustness', curves)
    if not (arguments.config and arguments.checkpoint):
        raise ConfigError('Give CONFIG and CHECKPOINT to test, or --plot with the JSON files of earlier tests.')
    others = [read_curve(path) for path in arguments.compare]
    name = arguments.name or Path(arguments.config).stem
    try:
        curve = tested(arguments, name, others)
    except KeyboardInterrupt:
        sys.stderr.write('\nInterrupted; finished points are kept: run the same command again to go on.\n')
        return 130
    return write_report(arguments.out, name, [curve, *others])


def tested(arguments: argparse.Namespace, name: str, others: Sequence['Curve']) -> 'Curve':
    """The model's curve with all points asked for."""
    from rass_mm.analysis.robustness.curve import check_comparable, open_curve
    from rass_mm.analysis.robustness.identity import describe
    from rass_mm.analysis.robustness.sweep import Sweep, run_sweep, sweep_config
    from rass_mm.apis import prepare_config
    from rass_mm.config import load_config
    from rass_mm.engine.records import command_line, device_name
    from rass_mm.engine.trained_state import recorded_versions

    points = (tuple(arguments.kinds), tuple(arguments.severities))
    sweep = Sweep(*points, arguments.seed, arguments.limit, arguments.recipe_version)
    config = sweep_config(load_config(arguments.config, arguments.cfg_options), sweep)
    config = prepare_config(config, work_dir=str(arguments.out / 'logs' / name))
    config.log_level = 'WARNING'  # every point's log would bury the progress
    header = describe(config, arguments.config, arguments.checkpoint, name, sweep.seed, sweep.recipe_version)
    curve = open_curve(arguments.out / f'{name}.json', header)
    check_comparable([*others, curve])
    missing = len(curve.missing(sweep.keys))
    logger.info('%d of %d points to test', missing, len(sweep.keys))
    if missing:
        curve.begin({'command': command_line(), 'device': device_name(), 'versions': recorded_versions()})
        with progress(missing, curve.header['data']['images']) as (advance, finished):
            run_sweep(config, arguments.checkpoint, curve, sweep, advance, finished)
    return curve


@contextmanager
def progress(points: int, images: int) -> Iterator[tuple[Callable[[int], None], Callable[[dict[str, Any]], None]]]:
    """Yields what to call after a batch, with its number of images, and after a point, with the point.

    In a terminal a bar moves with every batch; every point leaves a line everywhere.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (TextColumn('{task.description}'), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        row, done = bar.add_task('testing', total=points * images), 0

        def finished(point: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            what = point['kind']
            if point['severity'] is not None:
                amount = parameter_text(what, point['parameter'])
                what = f'{what} {point["severity"]:g}' + (f' ({amount})' if amount else '')
            line = f'{done}/{points} {what}: mIoU {point["mIoU"]:.2f} ({point["seconds"]:.1f} s)'
            console.print(line, markup=False)

        yield lambda count: bar.advance(row, count), finished


def write_report(out: Path, name: str, curves: Sequence['Curve']) -> int:
    """Writes `<name>.md` and `<name>.png` and says so; returns 0."""
    from rass_mm.analysis.robustness.plot import draw_curves
    from rass_mm.analysis.robustness.report import report
    from rass_mm.files.atomic import write_text

    write_text(out / f'{name}.md', report(curves))
    draw_curves(out / f'{name}.png', curves)
    sys.stdout.write(f'{out / name}.md and {name}.png: {", ".join(curve.name for curve in curves)}\n')
    return 0
