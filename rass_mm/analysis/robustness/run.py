"""Runs the robustness test of one model and writes its table and plot."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from rass_mm.analysis.robustness.curve import Curve, check_comparable, open_curve
from rass_mm.analysis.robustness.identity import describe
from rass_mm.analysis.robustness.plot import draw_curves
from rass_mm.analysis.robustness.report import report
from rass_mm.analysis.robustness.sweep import Sweep, run_sweep, sweep_config
from rass_mm.apis import prepare_config
from rass_mm.config import load_config
from rass_mm.config.building import explained, named_parts
from rass_mm.config.settings import check_settings
from rass_mm.degradation.severity import parameter_text
from rass_mm.engine.placement import device_name
from rass_mm.engine.records import command_line
from rass_mm.files.atomic import write_text
from rass_mm.files.locks import held
from rass_mm.parallel import progress_bar
from rass_mm.versions import recorded_versions

logger = logging.getLogger(__name__)


def claimed(out: Path, name: str) -> AbstractContextManager[None]:
    """Context manager. Holds the lock of the files of one model. Other models can be tested in the folder meanwhile."""
    return held(out, f'.{name}.lock')


def tested(arguments: argparse.Namespace, name: str, others: Sequence[Curve]) -> Curve:
    """Tests the points of a model that have not been tested yet, and returns its complete curve.

    The lock of the model must be held, see `claimed`.

    Args:
        arguments: the parsed command line of `rass-mm robustness`.
        name: name of the model in tables, plots and file names.
        others: curves of other models, which must be comparable with this test.

    Raises:
        RassError: the config, the checkpoint or the data cannot be used, or a curve is not comparable.
    """

    points = (tuple(arguments.kinds), tuple(arguments.severities))
    sweep = Sweep(*points, arguments.seed, arguments.limit, arguments.recipe_version, arguments.calibration)
    given = load_config(arguments.config, arguments.cfg_options)
    check_settings(given, 'test')
    with explained(given, 'test_dataloader', 'test_evaluator'):
        config = sweep_config(given, sweep)
    config = prepare_config(config, work_dir=str(arguments.out / 'logs' / name))
    config.log_level = 'WARNING'  # a log per point would hide the progress
    header = describe(config, arguments.config, arguments.checkpoint, name, sweep)
    curve = open_curve(arguments.out / f'{name}.json', header)
    check_comparable([*others, curve])
    missing = len(curve.missing(sweep.keys))
    logger.info('%d of %d points to test', missing, len(sweep.keys))
    if missing:
        curve.begin({'command': command_line(), 'device': device_name(), 'versions': recorded_versions()})
        shown = progress(missing, curve.header['data']['images'])
        with named_parts(config, 'model', 'test_dataloader', 'test_evaluator'), shown as (advance, finished):
            run_sweep(config, arguments.checkpoint, curve, sweep, advance, finished)
    return curve


@contextmanager
def progress(points: int, images: int) -> Iterator[tuple[Callable[[int], None], Callable[[dict[str, Any]], None]]]:
    """Context manager. Yields two callbacks that show the progress of a test.

    The first callback takes the number of images of a finished batch and advances a progress bar, which is shown only
    in a terminal. The second callback takes a finished point and prints it as a line.

    Args:
        points: number of points to test.
        images: number of images per point.
    """

    with progress_bar(counted=False) as bar:
        row, done = bar.add_task('testing', total=points * images), 0

        def finished(point: dict[str, Any]) -> None:
            nonlocal done
            done += 1
            what = point['kind']
            if point['severity'] is not None:
                amount = parameter_text(what, point['parameter'])
                what = f'{what} {point["severity"]:g}' + (f' ({amount})' if amount else '')
            line = f'{done}/{points} {what}: mIoU {point["mIoU"]:.2f} ({point["seconds"]:.1f} s)'
            bar.console.print(line, markup=False)

        yield lambda count: bar.advance(row, count), finished


def write_report(out: Path, name: str, curves: Sequence[Curve]) -> int:
    """Writes `<name>.md` and `<name>.png` to the folder `out`, prints their paths and returns 0.

    The lock of the model must be held, see `claimed`.
    """

    write_text(out / f'{name}.md', report(curves))
    draw_curves(out / f'{name}.png', curves)
    sys.stdout.write(f'{out / name}.md and {name}.png: {", ".join(curve.name for curve in curves)}\n')
    return 0
