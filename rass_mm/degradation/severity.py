"""Degradations at a chosen severity, for robustness curves: one alone, or the whole recipe made milder.

An image keeps its draw at every severity: the same seed gives the same kernels, noise patterns and order, only weaker.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rass_mm.degradation.recipe import OSEDIFF, SINGLES, Recipe, Stage, draw, resize_step, single
from rass_mm.errors import ConfigError

MIXED = 'mixed'
KINDS = (*SINGLES, MIXED)
PARAMETERS = {
    'blur': ('sigma_x', 'blur sigma', ' px'),
    'downscale': ('scale', 'scale', 'x'),
    'gaussian': ('sigma', 'noise sigma', '/255'),
    'poisson': ('scale', 'Poisson scale', ''),
    'jpeg': ('quality', 'JPEG quality', ''),
}
"""Kind -> key in the step of `single`, name and unit of what severity changes."""


def at_severity(kind: str, severity: float, height: int, width: int, seed: int, recipe: Recipe = OSEDIFF) -> dict:
    """Parameters of a degradation of an image.

    Args:
        kind: One of `KINDS`; 'mixed' is the two-stage recipe, made milder by `scaled`.
        severity: 0 is the mildest value that the recipe can draw, 1 the hardest or, for 'mixed', the recipe itself.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        seed: Seed of the image, as `image_seed` gives it. 'mixed' at 1 is then what `rass-mm make-lq` makes of it.
        recipe: What 'mixed' draws from; its version must be that of the copy to compare with.

    Returns:
        A dict for `recipe.apply`.

    Raises:
        ConfigError: no such kind or severity.
    """
    if kind == MIXED:
        return scaled(draw(recipe, np.random.default_rng(seed), height, width), severity, recipe)
    return single(kind, severity, height, width, seed)


def scaled(parameters: Mapping[str, Any], severity: float, recipe: Recipe = OSEDIFF) -> dict:
    """A draw made milder: what the recipe would have drawn from ranges narrowed towards their mild ends.

    Every amount is drawn uniformly from a range, so moving the drawn amount by a share is narrowing the range by it.
    Mild are the smallest sigma and noise, the best JPEG quality, scale 1 and, for sinc filters, the cut-off pi.
    What is chosen and not measured stays as drawn: which steps, kernels, kernel sizes and shapes, orders and modes.

    Args:
        parameters: What `draw` returned.
        severity: 1 returns an equal draw, 0 every amount at its mild end, linear between them.
        recipe: The recipe that was drawn from.

    Returns:
        A new dict for `recipe.apply`.

    Raises:
        ConfigError: the severity is not in 0..1.
    """
    if not 0 <= severity <= 1:
        raise ConfigError(f'The severity is {severity}; it must be 0 to 1.')
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
    # In this form severity 1 gives the drawn value exactly, without a rounding error.
    amounts = {name: severity * step[name] + (1 - severity) * mild for name, mild in ends.items() if name in step}
    if step['op'] == 'resize':
        return {**step, **resize_step(step['mode'], amounts['scale'], step['interpolation'], height, width)}
    if step['op'] == 'jpeg':
        amounts['quality'] = round(amounts['quality'])
    return {**step, **amounts}


def parameter(kind: str, severity: float) -> float | None:
    """The physical amount behind a severity, see `PARAMETERS`; None for 'mixed', which has many."""
    if kind == MIXED:
        return None
    return float(single(kind, severity, 1000, 1000)['steps'][0][PARAMETERS[kind][0]])


def parameter_text(kind: str, amount: float | None) -> str:
    """The amount with its unit, e.g. '0.9 px'; empty where there is none."""
    return '' if amount is None else f'{amount:.3g}{PARAMETERS[kind][2]}'
