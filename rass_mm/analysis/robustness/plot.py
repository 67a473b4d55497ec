"""Plot of robustness curves, with a panel per degradation and a line per model."""

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rass_mm.analysis.robustness.curve import CLEAN, Curve
from rass_mm.analysis.robustness.report import TITLES, axis_text, kinds_of, protocol_text, severities_of
from rass_mm.degradation.severity import parameter, parameter_text
from rass_mm.files.atomic import write_bytes

COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
"""Palette of Okabe and Ito, whose colours are distinguishable with any type of colour vision."""
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
COLUMNS = 3
TICKS = 6
LETTERS = 12
"""Number of title characters per inch."""


def draw_curves(path: Path, curves: Sequence[Curve]) -> None:
    """Writes the plot as a PNG file. All panels have the same range on the mIoU axis.

    Args:
        path: The file to write.
        curves: At least one curve. Curves must be comparable, see `check_comparable`.
    """
    kinds = kinds_of(curves)
    columns = min(COLUMNS, max(len(kinds), 1))
    rows = max(math.ceil(len(kinds) / columns), 1)
    width = max(4.0 * columns, 6.0)
    figure = Figure(figsize=(width, 3.1 * rows + 1.1), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    bounds = _bounds(curves)
    for number, (panel, kind) in enumerate(zip(panels, kinds, strict=False)):
        _draw_panel(panel, curves, kind)
        panel.set_ylim(*bounds)
        if number % columns == 0:
            panel.set_ylabel('mIoU (%)')
    for panel in panels[len(kinds) :]:
        panel.set_axis_off()
    figure.suptitle(textwrap.fill(protocol_text(curves[0]), int(LETTERS * width)), fontsize=10)
    handles = [_sample(number, curve.name) for number, curve in enumerate(curves)]
    if any(curve.value(CLEAN, None) is not None for curve in curves):
        handles.append(Line2D([], [], color='grey', linestyle='--', label='the same model on clean images'))
    figure.legend(
        handles=handles, loc='outside lower center', ncols=min(len(handles), columns + (columns > 2)), frameon=False
    )
    encoded = io.BytesIO()
    figure.savefig(encoded, format='png')
    write_bytes(path, encoded.getvalue())


def _style(number: int) -> dict[str, str]:
    return {'color': COLORS[number % len(COLORS)], 'marker': MARKERS[number % len(MARKERS)]}


def _sample(number: int, name: str) -> Line2D:
    return Line2D([], [], label=name, **_style(number))


def _draw_panel(panel: Axes, curves: Sequence[Curve], kind: str) -> None:
    severities = severities_of(curves, kind)
    for number, curve in enumerate(curves):
        style = _style(number)
        points = [(severity, curve.value(kind, severity)) for severity in severities]
        points = [point for point in points if point[1] is not None]
        panel.plot(*zip(*points, strict=True) if points else ((), ()), linewidth=1.6, markersize=5, **style)
        clean = curve.value(CLEAN, None)
        if clean is not None:
            panel.axhline(clean, color=style['color'], linestyle='--', linewidth=1, alpha=0.7)
    panel.set_title(TITLES[kind], fontsize=10)
    panel.set_xlabel(axis_text(kind), fontsize=9)
    # As many labels as fit, always including the hardest severity.
    ticks = severities[:: -math.ceil(len(severities) / TICKS)][::-1]
    amounts = [parameter_text(kind, parameter(kind, severity)) for severity in ticks]
    labels = [f'{severity:g}\n{amount}'.strip() for severity, amount in zip(ticks, amounts, strict=True)]
    panel.set_xticks(ticks, labels, fontsize=8)
    panel.tick_params(axis='y', labelsize=8)
    panel.set_xlim(-0.06, 1.06)
    panel.grid(alpha=0.3)


def _bounds(curves: Sequence[Curve]) -> tuple[float, float]:
    """Computes the limits of the mIoU axis in multiples of 5, so that small differences do not look large."""
    values = [point['mIoU'] for curve in curves for point in curve.points]
    low = 5 * math.floor(min(values) / 5 - 0.1)
    return max(low, 0), 5 * math.ceil(max(values) / 5 + 0.1)
