"""Plots of the mIoU per system with error bars, and of learning curves with their deviation over the seeds."""

import io
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.commands import SPLITS
from experiments.questions import Answer
from experiments.results import DECIDED, Row, miou, spread
from experiments.systems import ABLATION, BOUND, CAUSE, MAIN
from rass_mm.analysis.robustness.plot import COLORS, MARKERS
from rass_mm.files.atomic import write_bytes

TOGETHER = 7
"""Curves in one panel, at most; there are no more colours."""
ACROSS = 2
"""Panels side by side."""
FAMILIES = ('dt', 'ft', 'base', 'rass')
"""Systems that keep their colour in every panel, whatever the schedule."""


def draw_bars(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Plots the degraded and clean mIoU of every system: means as bars, deviations as whiskers, seeds as dots."""
    figure = Figure(figsize=(8, 0.45 * len(rows) + 1.4), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for number, split in enumerate(SPLITS):
        for place, row in enumerate(rows):
            values = row.values(miou(split))
            y, color = place + 0.4 * (number - 0.5), COLORS[number]
            label = split if place == 0 else None
            panel.barh(y, statistics.fmean(values), 0.36, xerr=spread(values), color=color, alpha=0.75, label=label)
            panel.plot(values, [y] * len(values), '.', color='black', markersize=3)
    panel.set_yticks(range(len(rows)), [row.system.title.split(' (')[0] for row in rows], fontsize=8)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_xlabel('mIoU (%)')
    figure.suptitle(f'{title}: mean, standard deviation and single seeds', fontsize=9)
    panel.legend(fontsize=8)
    panel.grid(axis='x', alpha=0.3)
    _save(figure, path)


def draw_differences(path: Path, title: str, answered: Sequence[Answer]) -> None:
    """Plots the mean difference of every question with its 95 % interval, and the seeds as small dots."""
    figure = Figure(figsize=(9, 0.3 * len(answered) + 1.4), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for place, answer in enumerate(answered):
        found, color = answer.comparison, COLORS[0] if answer.verdict in DECIDED else 'grey'
        mean = statistics.fmean(found.differences)
        low, high = found.interval or (mean, mean)
        panel.plot([low, high], [place, place], color=color, linewidth=2)
        panel.plot([mean], [place], 'o', color=color, markersize=5)
        panel.plot(found.differences, [place] * len(found.differences), '.', color='black', markersize=3)
    panel.axvline(0, color='black', linewidth=0.8)
    panel.set_yticks(range(len(answered)), [answer.question.text for answer in answered], fontsize=8)
    panel.set_ylim(len(answered) - 0.4, -0.6)
    panel.set_xlabel('difference in mIoU (points)')
    panel.grid(axis='x', alpha=0.3)
    figure.suptitle(f'{title}: mean, 95 % interval and seeds; grey: unclear', fontsize=9)
    _save(figure, path)


def draw_curves(path: Path, title: str, rows: Sequence[Row]) -> None:
    """Plots the degraded validation mIoU during training: means over seeds as lines, deviations as bands."""
    rows = [row for row in rows if 'curve' in row.first]
    groups = panels_of(rows)
    lines = math.ceil(len(groups) / ACROSS)
    figure = Figure(figsize=(6 * min(len(groups), ACROSS), 4.4 * lines), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, min(len(groups), ACROSS), squeeze=False, sharey=True).ravel()
    for panel in panels[len(groups) :]:
        panel.remove()
    for panel, group in zip(panels, groups, strict=False):
        for number, row in zip(colors_of(group), group, strict=True):
            steps = [step for step, _ in row.first['curve']]
            curves = [[value for _, value in record['curve']] for record in row.by_seed.values()]
            points = list(zip(*curves, strict=True))
            means, spreads = [statistics.fmean(p) for p in points], [spread(p) for p in points]
            style = {'color': COLORS[number], 'marker': MARKERS[number]}
            panel.plot(steps, means, label=row.system.title, linewidth=1.5, markersize=4, **style)
            low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
            panel.fill_between(steps, low, high, color=style['color'], alpha=0.15)
        panel.set_xlabel('training step')
        panel.legend(fontsize=7)
        panel.grid(alpha=0.3)
    for panel in panels[: len(groups) : ACROSS]:
        panel.set_ylabel('mIoU (%), degraded validation images')
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def panels_of(rows: Sequence[Row]) -> list[list[Row]]:
    """Returns the rows of each panel: main systems, RASS with ablations and bound, and runs of equal length."""
    kinds = [[row for row in rows if row.system.group in groups] for groups in ((MAIN,), (ABLATION, BOUND))]
    if kinds[1]:
        kinds[1] = [row for row in rows if row.system.name == 'rass'] + kinds[1]
    causes = [row for row in rows if row.system.group == CAUSE]
    lengths = sorted({row.first['steps'] for row in causes})
    kinds += [[row for row in causes if row.first['steps'] == steps] for steps in lengths]
    return [kind[i : i + TOGETHER] for kind in kinds for i in range(0, len(kind), TOGETHER)]


def colors_of(rows: Sequence[Row]) -> list[int]:
    """Returns the colour index of each row in a panel: that of its family, or the first free one."""
    taken: list[int] = []
    for row in rows:
        family = row.system.name.split('_')[0]
        own = FAMILIES.index(family) if family in FAMILIES else -1
        free = [number for number in range(len(COLORS)) if number not in taken]
        taken.append(own if own in free else free[0])
    return taken


def _save(figure: Figure, path: Path) -> None:
    encoded = io.BytesIO()
    figure.savefig(encoded, format='png')
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, encoded.getvalue())
