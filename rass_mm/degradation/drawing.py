"""Drawing of the degradation parameters of an image from a recipe."""

import numpy as np

from rass_mm.degradation.applying import INTERPOLATIONS
from rass_mm.degradation.recipe import KERNELS, RESIZES, Recipe, Stage


def draw(recipe: Recipe, rng: np.random.Generator, height: int, width: int) -> dict:
    """Draws all parameters of one image.

    Args:
        recipe: The recipe to draw from, e.g. `OSEDIFF`.
        rng: The only source of randomness.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        A JSON-serialisable dict with `height`, `width` and `steps`, a list of dicts in the order in which `apply` runs
        them. Each step has `op` (blur, resize, noise or jpeg), `stage` (1, 2 or final) and its parameters.
    """
    steps = []
    for number, stage in ((1, recipe.first), (2, recipe.second)):
        drawn = [_draw_blur(stage, rng)] if rng.random() < stage.blur_prob else []
        # As in Real-ESRGAN, both resizes are relative to the input size; the second one is not relative to the result
        # of the first. At final scale 1, the worst case is the smaller of the two scales and not their product.
        drawn += [_draw_resize(stage, rng, height, width), _draw_noise(stage, rng)]
        if number == 1:
            drawn.append(_draw_jpeg(stage, rng, recipe.jpeg_chroma))
        steps += [{**step, 'stage': number} for step in drawn]
    steps += [{**step, 'stage': 'final'} for step in _draw_final(recipe, rng, height, width)]
    return {'height': int(height), 'width': int(width), 'steps': steps}


def _draw_final(recipe: Recipe, rng: np.random.Generator, height: int, width: int) -> list[dict]:
    """Draws the second JPEG and, before or after it, the resize back to the input size with the final sinc filter.

    Resize and sinc stay together, as in Real-ESRGAN. Its authors report twisted lines for the order sinc, JPEG, resize.
    """
    sinc = []
    if rng.random() < recipe.final_sinc_prob:
        size = int(rng.choice(recipe.second.kernel_sizes))
        sinc = [{'op': 'blur', 'kernel': 'sinc', 'size': size, 'omega': float(rng.uniform(np.pi / 3, np.pi))}]
    jpegs = [_draw_jpeg(recipe.second, rng, recipe.jpeg_chroma)]
    jpeg_first = rng.random() < 0.5
    # Drawn last, so that the other parameters of an image do not depend on the version.
    interpolation = 'bilinear' if recipe.version == 1 else str(rng.choice(list(INTERPOLATIONS)))
    back = [resize_step('back', 1.0, interpolation, height, width), *sinc]
    return jpegs + back if jpeg_first else back + jpegs


def _draw_blur(stage: Stage, rng: np.random.Generator) -> dict:
    size = int(rng.choice(stage.kernel_sizes))
    if rng.random() < stage.sinc_prob:
        # A low cut-off needs a kernel that is wide enough for its ripples (Real-ESRGAN's rule).
        lowest = np.pi / 3 if size < 13 else np.pi / 5
        return {'op': 'blur', 'kernel': 'sinc', 'size': size, 'omega': float(rng.uniform(lowest, np.pi))}
    kind = str(rng.choice(KERNELS, p=stage.kernel_probs))
    sigma_x = sigma_y = float(rng.uniform(*stage.sigma))
    rotation = 0.0
    if kind.endswith('aniso'):
        sigma_y = float(rng.uniform(*stage.sigma))
        rotation = float(rng.uniform(-np.pi, np.pi))
    step = {'op': 'blur', 'kernel': kind, 'size': size, 'sigma_x': sigma_x, 'sigma_y': sigma_y, 'rotation': rotation}
    if kind in ('iso', 'aniso'):
        return step
    low, high = stage.beta_gaussian if kind.startswith('generalized') else stage.beta_plateau
    # Real-ESRGAN's rule: peaked and flat shapes are equally likely, regardless of the extent of the range on each side.
    return {**step, 'beta': float(rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high))}


def _draw_resize(stage: Stage, rng: np.random.Generator, height: int, width: int) -> dict:
    mode = str(rng.choice(RESIZES, p=stage.resize_probs))
    low, high = {'up': (1.0, stage.resize_scale[1]), 'down': (stage.resize_scale[0], 1.0), 'keep': (1.0, 1.0)}[mode]
    scale = float(rng.uniform(low, high))
    return resize_step(mode, scale, str(rng.choice(list(INTERPOLATIONS))), height, width)


def resize_step(mode: str, scale: float, interpolation: str, height: int, width: int) -> dict:
    """Returns a resize step in the format of `draw`. The target size is rounded down, but is at least 1 pixel.

    Args:
        mode: 'up', 'down', 'keep' or 'back', for the record only.
        scale: Target size as a multiple of the input size.
        interpolation: A key of `INTERPOLATIONS`.
        height: Height of the input image in pixels.
        width: Width of the input image in pixels.
    """
    size = {'height': max(1, int(height * scale)), 'width': max(1, int(width * scale))}
    return {'op': 'resize', 'mode': mode, 'scale': scale, 'interpolation': interpolation, **size}


def _draw_noise(stage: Stage, rng: np.random.Generator) -> dict:
    if rng.random() < stage.gaussian_prob:
        amount = {'kind': 'gaussian', 'sigma': float(rng.uniform(*stage.gaussian_sigma))}
    else:
        amount = {'kind': 'poisson', 'scale': float(rng.uniform(*stage.poisson_scale))}
    grey = bool(rng.random() < stage.grey_prob)
    return {'op': 'noise', **amount, 'grey': grey, 'seed': int(rng.integers(2**32))}


def _draw_jpeg(stage: Stage, rng: np.random.Generator, chroma: str) -> dict:
    low, high = stage.jpeg_quality
    step = {'op': 'jpeg', 'quality': int(rng.integers(low, high + 1))}
    # Omitted if smooth, as in all manifests written before the setting was introduced.
    return step if chroma == 'smooth' else {**step, 'chroma': chroma}
