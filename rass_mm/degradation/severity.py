"""Degradations of a chosen severity, for robustness curves: a single degradation, or a milder form of the whole recipe.

Random choices do not depend on the severity. With the same seed, the kernels, the noise patterns and the order of the
steps are the same at every severity, and only the strength changes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rass_mm.degradation.drawing import draw, resize_step
from rass_mm.degradation.recipe import OSEDIFF, Recipe, Stage
from rass_mm.errors import ConfigError

SINGLES = ('blur', 'downscale', 'gaussian', 'poisson', 'jpeg')
MIXED = 'mixed'
KINDS = (*SINGLES, MIXED)
PARAMETERS = {
    'blur': ('sigma_x', 'blur sigma', ' px'),
    'downscale': ('scale', 'scale', 'x'),
    'gaussian': ('sigma', 'noise sigma', '/255'),
    'poisson': ('scale', 'Poisson scale', ''),
    'jpeg': ('quality', 'JPEG quality', ''),
}
"""Maps each kind except 'mixed' to its amount at a severity: the key in the step of `single`, the name and the unit."""


def at_severity(kind: str, severity: float, height: int, width: int, seed: int, recipe: Recipe = OSEDIFF) -> dict:
    """Returns the degradation parameters of an image at a given severity.

    Args:
        kind: One of `KINDS`. 'mixed' is the two-stage recipe, made milder by `scaled`.
        severity: 0 is the mildest value that the recipe can draw; 1 is the strongest or, for 'mixed', the recipe
            itself.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        seed: Seed of the image, from `image_seed`. With this seed, 'mixed' at severity 1 equals the result of
            `rass-mm make-lq`.
        recipe: The recipe that 'mixed' draws from. Its version must be that of the copy to compare with.

    Returns:
        A dict for `rass_mm.degradation.applying.apply`.

    Raises:
        ConfigError: `kind` or `severity` is not valid.
    """
    if kind == MIXED:
        return scaled(draw(recipe, np.random.default_rng(seed), height, width), severity, recipe)
    return single(kind, severity, height, width, seed)


def single(kind: str, severity: float, height: int, width: int, seed: int = 0) -> dict:
    """Returns the parameters of a single degradation, for robustness curves.

    Args:
        kind: One of `SINGLES`.
        severity: 0 is the mildest value that `OSEDIFF.first` can draw and 1 the strongest, with linear interpolation in
            between.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        seed: Seed of the noise.

    Returns:
        A dict for `apply` that contains the steps of this degradation only.

    Raises:
        ConfigError: `kind` or `severity` is not valid.
    """
    if kind not in SINGLES or not 0 <= severity <= 1:
        raise ConfigError(
            f'There is no degradation {kind!r} of severity {severity}. Choose one of {SINGLES} '
            'and a severity in the range 0 to 1.'
        )
    return with_amounts({kind: amount_at(kind, severity)}, height, width, seed)


def amount_at(kind: str, severity: float) -> float:
    """Returns the amount of a single degradation at a severity, see `PARAMETERS`. It is a linear interpolation."""
    stage = OSEDIFF.first
    mild, hard = {
        'blur': stage.sigma,
        'downscale': (1.0, stage.resize_scale[0]),
        'gaussian': stage.gaussian_sigma,
        'poisson': stage.poisson_scale,
        'jpeg': stage.jpeg_quality[::-1],
    }[kind]
    return mild + severity * (hard - mild)


def with_amounts(amounts: Mapping[str, float], height: int, width: int, seed: int = 0) -> dict:
    """Returns the parameters of several single degradations of given amounts, one after the other.

    Args:
        amounts: Key of `SINGLES` -> amount, see `PARAMETERS`. The order is that of `SINGLES`.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        seed: Seed of the noise.

    Returns:
        A dict for `apply`.
    """
    kinds = [kind for kind in SINGLES if kind in amounts]
    steps = [{**step, 'stage': kind} for kind in kinds for step in _steps(kind, amounts[kind], height, width, seed)]
    return {'height': int(height), 'width': int(width), 'steps': steps}


def _steps(kind: str, amount: float, height: int, width: int, seed: int) -> list[dict]:
    noise = {'op': 'noise', 'grey': False, 'seed': seed}
    if kind == 'blur':
        spread = {'sigma_x': amount, 'sigma_y': amount}
        return [{'op': 'blur', 'kernel': 'iso', 'size': 21, **spread, 'rotation': 0.0}]
    if kind == 'downscale':
        small = resize_step('down', amount, 'area', height, width)
        return [small, resize_step('back', 1.0, 'bilinear', height, width)]
    if kind == 'gaussian':
        return [{**noise, 'kind': 'gaussian', 'sigma': amount}]
    if kind == 'poisson':
        return [{**noise, 'kind': 'poisson', 'scale': amount}]
    return [{'op': 'jpeg', 'quality': round(amount)}]


def scaled(parameters: Mapping[str, Any], severity: float, recipe: Recipe = OSEDIFF) -> dict:
    """Returns milder parameters, as if they had been drawn from ranges narrowed towards their mild ends.

    Every amount is drawn uniformly from a range. Scaling the drawn amount is therefore equivalent to narrowing the
    range. The mild ends are the smallest sigma and noise, the best JPEG quality, scale 1 and, for sinc filters, a
    cut-off of pi. Discrete choices stay as drawn: steps, kernels, kernel sizes and shapes, orders and modes.

    Args:
        parameters: The result of `draw`.
        severity: 1 keeps every amount as drawn and 0 sets it to its mild end, with linear interpolation in between.
        recipe: The recipe that the parameters were drawn from.

    Returns:
        A new dict for `rass_mm.degradation.applying.apply`.

    Raises:
        ConfigError: the severity is not in 0..1.
    """
    if not 0 <= severity <= 1:
        raise ConfigError(f'The severity is {severity}, but it must be in the range 0 to 1.')
    stages = {1: recipe.first, 2: recipe.second, 'final': recipe.second}
    height, width = parameters['height'], parameters['width']
    steps = [_milder(step, stages[step['stage']], severity, height, width) for step in parameters['steps']]
    return {**parameters, 'steps': steps}


def _milder(step: Mapping[str, Any], stage: Stage, severity: float, height: int, width: int) -> dict:
    ends = {
        'blur': {'sigma_x': stage.sigma[0], 'sigma_y': stage.sigma[0], 'omega': np.pi},
        'resize': {'scale': 1.0},
        'noise': {'sigma': stage.gaussian_sigma[0], 'scale': stage.poisson_scale[0]},
        'jpeg': {'quality': stage.jpeg_quality[1]},
    }[step['op']]
    # In this form, severity 1 results in exactly the drawn value, without a rounding error.
    amounts = {name: severity * step[name] + (1 - severity) * mild for name, mild in ends.items() if name in step}
    if step['op'] == 'resize':
        return {**step, **resize_step(step['mode'], amounts['scale'], step['interpolation'], height, width)}
    if step['op'] == 'jpeg':
        amounts['quality'] = round(amounts['quality'])
    return {**step, **amounts}


def parameter(kind: str, severity: float) -> float | None:
    """Returns the amount that `PARAMETERS` describes at a severity, or None for 'mixed', which has several amounts."""
    if kind == MIXED:
        return None
    return float(single(kind, severity, 1000, 1000)['steps'][0][PARAMETERS[kind][0]])


def parameter_text(kind: str, amount: float | None) -> str:
    """Formats an amount with its unit, e.g. '0.9 px'. For None, returns an empty string."""
    return '' if amount is None else f'{amount:.3g}{PARAMETERS[kind][2]}'
