"""Writes curves of trainings as a picture, a CSV table and a JSON file."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rass_mm.analysis.curves.runs import Run
from rass_mm.analysis.robustness.plot import COLORS
from rass_mm.errors import DataError
from rass_mm.files.atomic import write_bytes, write_text
from rass_mm.files.regular import check_regular

COLUMNS = 3
FORMAT = 'rass_mm curves 1'
DASHES = ('-', '--', ':', '-.')
"""Line styles, each for as many runs as there are colours."""
HEADER = ('run', 'curve', 'iteration', 'value')


def curve_names(runs: Sequence[Run]) -> list[str]:
    """Returns the names of all curves: the total loss, other losses, learning rates, other values, validations."""

    def place(name: str) -> int:
        if name.startswith('val/'):
            return 4
        return 0 if name == 'loss' else 1 if 'loss' in name else 2 if name.rpartition('.')[2].endswith('lr') else 3

    names = dict.fromkeys(name for run in runs for name in run.curves)
    return sorted(names, key=place)


def refuse_foreign(picture: Path) -> None:
    """Checks that the CSV and JSON files beside a picture are missing, or were written by `write_curves`.

    Args:
        picture: the PNG file to write.

    Raises:
        DataError: one of them is another file, e.g. the record of a test.
    """
    for suffix in ('.csv', '.json'):
        file = picture.with_suffix(suffix)
        fix = 'Choose another name for --out.'
        check_regular(file, fix)
        if file.exists() and not _is_own(file):
            raise DataError(f'{file} was not written by this command, and --out {picture} would replace it. {fix}')


def _is_own(file: Path) -> bool:
    text = file.read_text(encoding='utf-8', errors='replace')
    if file.suffix == '.csv':
        return text.partition('\n')[0] == ','.join(HEADER)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get('format') == FORMAT


def write_curves(picture: Path, runs: Sequence[Run], title: str) -> list[Path]:
    """Writes a picture with a panel per curve and a line per run, and the values as CSV and JSON beside it.

    Args:
        picture: the PNG file to write. The other files have the same name with the suffixes `.csv` and `.json`.
        runs: at least one run with curves.
        title: title of the picture.

    Returns:
        The files.
    """
    write_bytes(picture, _drawn(runs, title))
    table, values = (picture.with_suffix(suffix) for suffix in ('.csv', '.json'))
    write_text(table, _table(runs))
    write_text(values, json.dumps({'format': FORMAT, 'runs': [_described(run) for run in runs]}, indent=1))
    return [picture, table, values]


def _drawn(runs: Sequence[Run], title: str) -> bytes:
    names = curve_names(runs)
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(max(4.0 * columns, 6.0), 2.8 * rows + 1.0), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(panels, names, strict=False):
        _draw_panel(panel, runs, name)
    for panel in panels[len(names) :]:
        panel.set_axis_off()
    figure.suptitle(title, fontsize=11, parse_math=False)  # a $ is not a formula
    handles = [Line2D([], [], label=run.name, **_style(number)) for number, run in enumerate(runs)]
    legend = figure.legend(handles=handles, loc='outside lower center', ncols=min(len(handles), 3), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    encoded = io.BytesIO()
    figure.savefig(encoded, format='png')
    return encoded.getvalue()


def _style(number: int) -> dict[str, str]:
    return {'color': COLORS[number % len(COLORS)], 'linestyle': DASHES[number // len(COLORS) % len(DASHES)]}


def _draw_panel(panel: Axes, runs: Sequence[Run], name: str) -> None:
    for number, run in enumerate(runs):
        points = sorted(run.curves.get(name, {}).items())
        marker = 'o' if name.startswith('val/') or len(points) == 1 else None
        line = {**_style(number), 'linewidth': 1.4, 'marker': marker, 'markersize': 4}
        panel.plot([iteration for iteration, _ in points], [value for _, value in points], **line)
    panel.set_title(name, fontsize=10, parse_math=False)
    panel.set_xlabel('iteration', fontsize=9)
    panel.tick_params(labelsize=8)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.grid(alpha=0.3)


def _table(runs: Sequence[Run]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(HEADER)
    for run in runs:
        for name in curve_names([run]):
            writer.writerows((run.name, name, *point) for point in sorted(run.curves[name].items()))
    return text.getvalue()


def _described(run: Run) -> dict[str, object]:
    """Describes a run as JSON, which has no NaN and infinity: such values are null."""
    curves = {
        name: {
            'iterations': sorted(run.curves[name]),
            'values': [value if math.isfinite(value) else None for _, value in sorted(run.curves[name].items())],
        }
        for name in curve_names([run])
    }
    return {'name': run.name, 'files': [str(file) for file in run.files], 'notes': run.notes, 'curves': curves}
