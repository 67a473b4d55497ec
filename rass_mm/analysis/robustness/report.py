"""Markdown tables of robustness curves."""

from collections.abc import Sequence

from rass_mm.analysis.report.tables import markdown_table
from rass_mm.analysis.robustness.curve import CLEAN, Curve, mean_over, recipe_version
from rass_mm.degradation.severity import KINDS, MIXED, PARAMETERS, parameter, parameter_text
from rass_mm.metrics.iou import MEAN_OVER

TITLES = {
    'blur': 'Gaussian blur',
    'downscale': 'Downscaling and back',
    'gaussian': 'Gaussian noise',
    'poisson': 'Poisson noise',
    'jpeg': 'JPEG compression',
    MIXED: 'Two-stage recipe',
}

CALIBRATION = (
    'Expected calibration error (%): the mean difference between the confidence of a pixel and the accuracy of the '
    'pixels with a similar confidence, in 15 bins. 0 is perfect.\n'
)


def kinds_of(curves: Sequence[Curve]) -> list[str]:
    """Returns the degradations that occur in at least one curve, in the order of `KINDS`."""
    present = {point['kind'] for curve in curves for point in curve.points}
    return [kind for kind in KINDS if kind in present]


def severities_of(curves: Sequence[Curve], kind: str) -> list[float]:
    """Returns the severities of a degradation that occur in at least one curve, from mild to hard."""
    return sorted({point['severity'] for curve in curves for point in curve.points if point['kind'] == kind})


def axis_text(kind: str) -> str:
    """Returns the label of the severity axis of a degradation."""
    if kind == MIXED:
        return "severity, share of the recipe's ranges"
    return f'severity, {PARAMETERS[kind][1]}'


def protocol_text(curve: Curve) -> str:
    """Describes in one line how a curve was measured. Comparable curves have the same description."""
    data = curve.header['data']
    images = f'{"the first " if data["limited"] else ""}{data["images"]} images'
    rule = mean_over(curve.header)
    mean = '' if rule == 'all' else f' (mean over {MEAN_OVER[rule]})'
    return (
        f'mIoU (%) over all pixels of {images} ({data["type"]}, {data["img_path"]}), '
        f'{len(data["classes"])} classes{mean}, draws of seed {curve.header["seed"]}, recipe version '
        f'{recipe_version(curve.header)}'
    )


def report(curves: Sequence[Curve]) -> str:
    """Returns a Markdown report with the protocol and one table per degradation, which has one row per model.

    Args:
        curves: At least one curve. Curves must be comparable, see `check_comparable`.
    """
    parts = [
        f'{protocol_text(curves[0])}. One degradation at a time; an image keeps its draw at every severity and for '
        'every model. 0 is the mildest that the training recipe can draw, 1 the hardest. One checkpoint per model: '
        'differences between models have no interval.\n'
    ]
    parts += _tables(curves, 'mIoU')
    if not kinds_of(curves):
        rows = [[curve.name, _cell(curve.value(CLEAN, None))] for curve in curves]
        parts.append(markdown_table(['model', CLEAN], rows))
    calibrated = [curve for curve in curves if curve.value(CLEAN, None, 'ECE') is not None]
    if calibrated:
        parts += [CALIBRATION, *_tables(calibrated, 'ECE')]
    return '\n'.join([*parts, *(_source(curve) for curve in curves)])


def _tables(curves: Sequence[Curve], metric: str) -> list[str]:
    return [f'{TITLES[kind]} ({axis_text(kind)}):\n\n{_table(curves, kind, metric)}' for kind in kinds_of(curves)]


def _table(curves: Sequence[Curve], kind: str, metric: str) -> str:
    severities = severities_of(curves, kind)
    header = ['model', CLEAN, *(_column(kind, severity) for severity in severities)]
    keys = [(CLEAN, None), *((kind, severity) for severity in severities)]
    return markdown_table(
        header, [[curve.name, *(_cell(curve.value(*key, metric)) for key in keys)] for curve in curves]
    )


def _column(kind: str, severity: float) -> str:
    amount = parameter_text(kind, parameter(kind, severity))
    return f'{severity:g} ({amount})' if amount else f'{severity:g}'


def _cell(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'


def _source(curve: Curve) -> str:
    checkpoint = curve.header['checkpoint']
    devices = ', '.join(dict.fromkeys(run['device'] for run in curve.runs))
    commands = '\n'.join(f'  `{command}`' for command in dict.fromkeys(run['command'] for run in curve.runs))
    return (
        f'* {curve.name}: {curve.header["config"]}, {checkpoint["name"]} (SHA-256 {checkpoint["sha256"][:12]}), '
        f'{devices}\n\n{commands}\n'
    )
