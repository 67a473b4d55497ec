"""Backdrop of a scene: sky with clouds, mountains, grassy hills and a line of trees."""

from typing import NamedTuple

import cv2
import numpy as np

from rass_mm.demo.scenes.canvas import Camera, Light, Stage, blend, noise_patch, tint


class _Hour(NamedTuple):
    """Time of day, with its probability and the properties of its light.

    Colours are RGB in [0, 1]. `elevations` is the range of the sun's elevation in degrees. The other values are
    described in `Light`.
    """

    probability: float
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    sun: tuple[float, float, float]
    ambient: tuple[float, float, float]
    elevations: tuple[float, float]
    shadow: float
    haze: float
    lamps: float


_NOON = _Hour(
    0.34, (0.25, 0.47, 0.80), (0.76, 0.86, 0.94), (0.78, 0.75, 0.69), (0.44, 0.48, 0.55), (35, 70), 0.55, 0.0025, 0
)
_GOLDEN = _Hour(
    0.20, (0.38, 0.46, 0.64), (0.97, 0.76, 0.52), (0.95, 0.68, 0.38), (0.42, 0.40, 0.45), (9, 22), 0.5, 0.004, 0.1
)
_OVERCAST = _Hour(
    0.24, (0.62, 0.65, 0.69), (0.80, 0.82, 0.83), (0.14, 0.14, 0.14), (0.72, 0.73, 0.75), (40, 70), 0.18, 0.004, 0
)
_FOG = _Hour(
    0.08, (0.70, 0.73, 0.75), (0.80, 0.81, 0.82), (0.10, 0.10, 0.10), (0.68, 0.70, 0.71), (40, 70), 0.1, 0.018, 0.1
)
_DUSK = _Hour(
    0.14, (0.13, 0.18, 0.36), (0.72, 0.46, 0.42), (0.10, 0.08, 0.10), (0.34, 0.34, 0.45), (10, 20), 0.15, 0.004, 0.6
)
_HOURS = (_NOON, _GOLDEN, _OVERCAST, _FOG, _DUSK)


def sample_light(rng: np.random.Generator) -> Light:
    """Samples the light of a scene: a time of day and a direction of the sun."""
    hour = _HOURS[rng.choice(len(_HOURS), p=[hour.probability for hour in _HOURS])]
    elevation, azimuth = np.radians(rng.uniform(*hour.elevations)), rng.uniform(0, 2 * np.pi)
    direction = (np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth))
    tint_of = rng.uniform(0.95, 1.05, (3, 3))
    gain = rng.uniform(0.85, 1.12)
    return Light(
        sun=np.asarray(direction),
        colour=np.asarray(hour.sun) * gain,
        ambient=np.asarray(hour.ambient) * gain,
        zenith=np.clip(np.asarray(hour.zenith) * tint_of[0], 0, 1),
        horizon=np.clip(np.asarray(hour.horizon) * tint_of[1], 0, 1),
        haze=hour.haze * rng.uniform(0.4, 1.5),
        shadow=hour.shadow,
        lamps=hour.lamps,
        cast=tint_of[2].astype(np.float32),
    )


def sample_camera(rng: np.random.Generator, height: int, width: int) -> Camera:
    """Samples a camera, mostly at the eye level of a pedestrian, sometimes higher or with no horizon in the image."""
    focal = rng.uniform(0.75, 1.25) * np.sqrt(height * width)
    down, high = rng.random(2)
    eye = rng.uniform(3.0, 8.0) if high < 0.25 else rng.uniform(1.5, 2.3)
    horizon = rng.uniform(0.3, 0.62) * height
    if down < 0.08:
        eye, horizon = rng.uniform(4, 9), rng.uniform(-0.3, -0.02) * height
    centre = width * rng.uniform(0.4, 0.6)
    return Camera(height, width, float(focal), float(horizon), float(centre), float(eye))


def paint_sky(stage: Stage) -> None:
    """Fills the whole image with a sky gradient and clouds."""
    camera, light, image = stage.camera, stage.light, stage.canvas.image
    height, width = image.shape[:2]
    altitude = np.clip((camera.horizon - np.arange(height)) / (0.75 * camera.focal), 0, 1).astype(np.float32)
    rise = (altitude**0.6)[:, None]
    image[:] = tint(rise, light.zenith - light.horizon, light.horizon)
    rows = min(height, int(camera.horizon) + 1)
    if rows < 2:
        return
    unit = np.sqrt(height * width) / 256
    clouds = noise_patch(stage.rng, rows, width, (stage.uniform(0.7, 1.4) * unit, stage.uniform(1.5, 3) * unit))
    cover = np.clip((clouds - stage.uniform(-0.6, 2.0)) * 1.6, 0, 0.9)
    tone = light.ambient * 0.75 + light.colour * 0.55 + light.horizon * 0.2
    puffs = tint(np.clip(clouds, -1, 2), -0.12 * tone, tone)
    image[:rows] = blend(image[:rows], puffs, cover * np.minimum(1, 0.35 + 3 * rise[:rows]))


def _skyline(stage: Stage, roughness: float, zoom: float) -> np.ndarray:
    """Samples a height for each image column, (W,), with about unit variance."""
    unit = np.sqrt(stage.camera.height * stage.camera.width) / 256
    return noise_patch(stage.rng, 1, stage.camera.width, (1, zoom * unit), roughness)[0]


def _below(stage: Stage, top: np.ndarray) -> tuple[int, np.ndarray]:
    """Returns the first image row and the uint8 mask of the area between a skyline and the horizon.

    `top` contains the image row of the skyline for each image column, (W,).
    """
    end = min(stage.camera.height, int(stage.camera.horizon) + 2)
    start = int(np.clip(np.floor(top.min()), 0, end - 1))
    rows = np.arange(start, end, dtype=np.float32)[:, None]
    return start, (rows >= top[None]).astype(np.uint8)


def paint_mountain(stage: Stage, share: float, depth: float) -> None:
    """Paints a mountain ridge with lit and shaded slopes of forest or rock, sometimes with snow.

    Args:
        stage: stage to draw on.
        share: approximate height of the ridge as a fraction of the image height.
        depth: distance in metres, for the haze.
    """
    camera, light = stage.camera, stage.light
    ridge = 1.1 - np.abs(_skyline(stage, 1.0, stage.uniform(1.2, 3.0))) * 0.6
    top = camera.horizon - camera.height * share * np.maximum(ridge, 0.15)
    start, mask = _below(stage, top)
    height, width = mask.shape
    relief = noise_patch(stage.rng, height, width, (1.2, 0.8), 1.0)
    slope = cv2.Sobel(relief, cv2.CV_32F, 1, 0, ksize=3) * np.float32(-np.sign(light.sun[0]) or 1)
    facing = np.clip(0.55 + 0.9 * slope, 0.1, 1.1)
    kinds = ((0.42, 0.38, 0.35), (0.22, 0.31, 0.17), (0.50, 0.43, 0.32), (0.30, 0.33, 0.38))
    albedo = np.asarray(kinds[stage.rng.integers(len(kinds))]) * stage.uniform(0.8, 1.15)
    colours = tint(facing, albedo * light.colour, albedo * light.ambient)
    if stage.chance(0.4) and share > 0.12:
        rows = np.arange(start, start + height, dtype=np.float32)[:, None]
        line = camera.horizon - camera.height * share * stage.uniform(0.65, 0.95)
        snow = np.clip((line - rows) / (0.04 * camera.height) + relief, 0, 1)
        colours = blend(colours, tint(facing, 0.5 * light.colour, 0.75 * light.ambient), snow)
    stage.canvas.begin('mountain')
    stage.canvas.paste(0, start, stage.veiled(colours, min(depth, 1.3 / light.haze)), mask)


def paint_hill(stage: Stage, share: float, albedo: np.ndarray) -> None:
    """Paints a smooth distant meadow, labelled as grass.

    Args:
        stage: stage to draw on.
        share: approximate height as a fraction of the image height.
        albedo: RGB colour of the grass.
    """
    camera, light = stage.camera, stage.light
    top = camera.horizon - camera.height * share * np.maximum(0, 0.5 + 0.7 * _skyline(stage, 1.6, 6.0))
    start, mask = _below(stage, top)
    height, width = mask.shape
    tone = 1 + 0.12 * noise_patch(stage.rng, height, width, (0.7, 2.0), 0.3)
    colours = tint(tone, albedo * light.shade((0, 1, 0)))
    stage.canvas.begin('grass')
    stage.canvas.paste(0, start, stage.veiled(colours, 90), mask)


def paint_treeline(stage: Stage, share: float, albedo: np.ndarray) -> None:
    """Paints a distant wood along part of the horizon.

    Args:
        stage: stage to draw on.
        share: approximate height as a fraction of the image height.
        albedo: RGB colour of the leaves.
    """
    camera, light = stage.camera, stage.light
    shape = _skyline(stage, 0.3, stage.uniform(0.7, 1.5))
    present = np.clip(_skyline(stage, 1.6, 6.0) + stage.uniform(-0.6, 1.6), 0, 1)
    top = camera.horizon + 1 - camera.height * share * present * np.maximum(0.2, 1 + 0.28 * shape)
    start, mask = _below(stage, top)
    mask *= (present > 0.08).astype(np.uint8)
    height, width = mask.shape
    leaves = noise_patch(stage.rng, height, width, (1, 1), 0.3)
    tone = np.maximum(0.75 + 0.28 * leaves + 0.15 * shape, 0.25)
    colours = tint(tone, albedo * (light.ambient + 0.5 * light.colour))
    stage.canvas.begin('tree')
    stage.canvas.paste(0, start, stage.veiled(colours, stage.uniform(40, 120)), mask)
