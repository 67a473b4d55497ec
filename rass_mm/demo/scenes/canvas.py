"""Canvas that keeps an image and its label aligned, and the camera, light and noise for drawing on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from rass_mm.datasets.scenes import SCENE_CLASSES

CLASS_ID = {name: index for index, name in enumerate(SCENE_CLASSES)}

SUPERSAMPLING = 2  # drawn larger and then averaged, so that object borders have mixed pixels as in a photo
TILE = 512
VEIL_LIMIT = 0.8  # labelled objects must stay visible, even in fog
_SHIFT = 3  # fractional bits of the polygon coordinates


@cache
def noise_tile(roughness: float) -> np.ndarray:
    """Computes a periodic multi-octave noise image.

    Args:
        roughness: exponent of the octave amplitudes; 1 looks like clouds, 0.2 like gravel.

    Returns:
        float32 array of shape (TILE, TILE) with zero mean and unit variance, within [-2.5, 2.5].
    """
    rng = np.random.Generator(np.random.PCG64(20))
    total = np.zeros((TILE, TILE), np.float32)
    for cells in (4, 8, 16, 32, 64, 128, 256, 512):
        zoom, pad = TILE // cells, 2
        grid = np.pad(rng.standard_normal((cells, cells)).astype(np.float32), pad, mode='wrap')
        size = grid.shape[0] * zoom
        large = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        total += large[pad * zoom : pad * zoom + TILE, pad * zoom : pad * zoom + TILE] * cells**-roughness
    return np.clip((total - total.mean()) / total.std(), -2.5, 2.5)


@cache
def _double_tile(roughness: float) -> np.ndarray:
    """Repeats the tile twice in each direction, so that every window of tile size is a slice."""
    return np.tile(noise_tile(roughness), (2, 2))


def noise_patch(
    rng: np.random.Generator, height: int, width: int, zoom: tuple[float, float] = (1, 1), roughness: float = 1.0
) -> np.ndarray:
    """Samples a random window of `noise_tile(roughness)`, magnified by `zoom` = (vertical, horizontal).

    Returns:
        float32 array of shape (height, width) with about unit variance.
    """
    y, x = (rng.random(2) * TILE).astype(int)
    rows = int(np.clip(round(height / zoom[0]), 1, TILE))
    columns = int(np.clip(round(width / zoom[1]), 1, TILE))
    window = _double_tile(roughness)[y : y + rows, x : x + columns]
    return window if window.shape == (height, width) else cv2.resize(window, (width, height))


def wrap(values: np.ndarray, period: float) -> np.ndarray:
    """Computes `np.mod` of float32 arrays for a positive period, several times as fast as NumPy."""
    turns = values * np.float32(1 / period)
    turns -= np.floor(turns)
    turns *= np.float32(period)
    return turns


def world_noise(x: np.ndarray, z: np.ndarray, per_metre: float, roughness: float = 1.0) -> np.ndarray:
    """Computes noise that is fixed to the ground plane.

    Args:
        x: float32 (H, W), distance to the right of the camera in metres.
        z: float32 (H, W) or (H, 1), distance in front of the camera in metres.
        per_metre: noise pixels per metre.
        roughness: see `noise_tile`.

    Returns:
        float32 array of shape (H, W).
    """
    map_x = wrap(x, TILE / per_metre) * np.float32(per_metre)
    map_z = np.empty_like(map_x)
    map_z[:] = wrap(z, TILE / per_metre) * np.float32(per_metre)
    return cv2.remap(noise_tile(roughness), map_x, map_z, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def tint(tone: np.ndarray, slope: np.ndarray, base: np.ndarray | float = 0.0) -> np.ndarray:
    """Computes `tone * slope + base` for a float32 (H, W) tone and RGB colours, much faster than by broadcasting."""
    pairs = zip(np.broadcast_to(slope, 3).tolist(), np.broadcast_to(base, 3).tolist(), strict=True)
    return cv2.merge([tone * np.float32(factor) + np.float32(offset) for factor, offset in pairs])


def blend(under: np.ndarray, over: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blends two float32 (H, W, 3) images; `alpha`, float32 (H, W), is the weight of the second image."""
    return cv2.blendLinear(under, over, 1 - alpha, alpha)


def scaled(colours: np.ndarray, tone: np.ndarray) -> np.ndarray:
    """Multiplies a float32 (H, W, 3) image by a float32 (H, W) factor."""
    return colours * cv2.merge((tone, tone, tone))


@dataclass(frozen=True)
class Camera:
    """Level pinhole camera that looks along z.

    World coordinates are in metres, with x to the right and y up from the ground. Image coordinates are in pixels of
    the supersampled canvas.

    Args:
        height: height of the canvas in pixels.
        width: width of the canvas in pixels.
        focal: focal length in pixels.
        horizon: image row of the horizon.
        centre: image column of the optical axis.
        eye: height of the camera above the ground in metres.
    """

    height: int
    width: int
    focal: float
    horizon: float
    centre: float
    eye: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """Maps (N, 3) points in metres to (N, 2) pixels (column, row)."""
        points = np.asarray(points, np.float64)
        scale = self.focal / np.maximum(points[:, 2], 0.3)
        pixels = np.empty((len(points), 2))
        pixels[:, 0] = self.centre + points[:, 0] * scale
        pixels[:, 1] = self.horizon + (self.eye - points[:, 1]) * scale
        return pixels

    def depth_at(self, row: float) -> float:
        """Computes the distance of the ground, in metres, in an image row below the horizon."""
        return self.focal * self.eye / max(row - self.horizon, 1e-3)

    @property
    def nearest(self) -> float:
        """Distance of the ground at the bottom of the image, in metres."""
        return self.depth_at(self.height)

    def half_view(self, z: float) -> float:
        """Computes half of the visible width at distance z, in metres."""
        return 0.5 * self.width * z / self.focal


@dataclass(frozen=True)
class Light:
    """Sunlight, sky and haze. Colours are RGB in [0, 1].

    Args:
        sun: unit vector (x, y, z) towards the sun.
        colour: colour of the sunlight.
        ambient: colour of the ambient light.
        zenith: colour of the sky at the zenith.
        horizon: colour of the sky at the horizon and of the haze.
        haze: density of the haze per metre.
        shadow: fraction of the light that a shadow removes.
        lamps: fraction of lit windows, and brightness of lamps, in [0, 1].
        cast: colour cast, RGB factors by which the whole image is multiplied.
    """

    sun: np.ndarray
    colour: np.ndarray
    ambient: np.ndarray
    zenith: np.ndarray
    horizon: np.ndarray
    haze: float
    shadow: float
    lamps: float
    cast: np.ndarray

    def shade(self, normal: Sequence[float]) -> np.ndarray:
        """Computes the RGB light factor of a surface with the unit normal (x, y, z)."""
        x, y, z = normal
        facing = max(0.0, float(x * self.sun[0] + y * self.sun[1] + z * self.sun[2]))
        return self.ambient * (0.8 + 0.2 * y) + self.colour * facing

    def veil(self, depth: float | np.ndarray) -> float | np.ndarray:
        """Computes the fraction of a colour that haze replaces at a distance in metres, from 0 to `VEIL_LIMIT`."""
        return VEIL_LIMIT * (1 - np.exp(-self.haze * np.asarray(depth, np.float32)))


class Canvas:
    """Image and layer map at the supersampled size. Later layers cover earlier ones.

    Attributes:
        image: float32 (H, W, 3), RGB in [0, 1].
        layer: uint16 (H, W), index of the layer of each pixel.
    """

    def __init__(self, height: int, width: int) -> None:
        self.image = np.zeros((height, width, 3), np.float32)
        self.layer = np.zeros((height, width), np.uint16)
        self._class_of_layer = [CLASS_ID['sky']]

    def begin(self, name: str) -> int:
        """Starts a layer of the class `name` for all that is painted until the next call, and returns its index."""
        self._class_of_layer.append(CLASS_ID[name])
        return len(self._class_of_layer) - 1

    @property
    def current(self) -> int:
        return len(self._class_of_layer) - 1

    def polygon(self, points: np.ndarray, colour: np.ndarray) -> None:
        """Fills a convex polygon, given by (N, 2) points in pixels, with an RGB colour."""
        fixed = _fixed(points)
        cv2.fillConvexPoly(self.image, fixed, colour.tolist(), shift=_SHIFT)
        cv2.fillConvexPoly(self.layer, fixed, self.current, shift=_SHIFT)

    def stroke(self, points: np.ndarray, colour: np.ndarray, thickness: float) -> None:
        """Draws straight lines through (N, 2) points in pixels. They are at least one pixel wide in the final image."""
        fixed = [_fixed(points)]
        width = max(SUPERSAMPLING, round(thickness))
        cv2.polylines(self.image, fixed, False, colour.tolist(), width, shift=_SHIFT)
        cv2.polylines(self.layer, fixed, False, self.current, width, shift=_SHIFT)

    def clip(self, left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int] | None:
        """Clips a box to the canvas, rounded outwards to pixels. Returns None if no part of it is visible."""
        height, width = self.layer.shape
        x0, y0 = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
        x1, y1 = min(width, int(np.ceil(right)) + 1), min(height, int(np.ceil(bottom)) + 1)
        return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None

    def paste(self, x: int, y: int, patch: np.ndarray, mask: np.ndarray) -> None:
        """Pastes a float32 (h, w, 3) patch at pixel (x, y) where the uint8 (h, w) mask is not 0."""
        rows, columns = slice(y, y + mask.shape[0]), slice(x, x + mask.shape[1])
        cv2.copyTo(patch, mask, self.image[rows, columns])
        np.copyto(self.layer[rows, columns], self.current, where=mask.astype(bool))

    def labels(self) -> np.ndarray:
        """Computes the uint8 label at the final size, at which each pixel is a block of 2x2 canvas pixels.

        The label of a block is the class of its second highest layer index. The topmost object thus determines the
        label if it covers at least half of the block.
        """
        a, b, c, d = (self.layer[row::2, column::2] for row in (0, 1) for column in (0, 1))
        second = np.maximum(
            np.minimum(np.maximum(a, b), np.maximum(c, d)), np.maximum(np.minimum(a, b), np.minimum(c, d))
        )
        return np.asarray(self._class_of_layer, np.uint8)[second]


def _fixed(points: np.ndarray) -> np.ndarray:
    """Converts pixel coordinates to fixed point with `_SHIFT` fractional bits."""
    return np.rint(np.asarray(points) * (1 << _SHIFT)).astype(np.int32)


@dataclass
class Stage:
    """Camera, light, canvas and random generator, which all drawing functions need."""

    camera: Camera
    light: Light
    canvas: Canvas
    rng: np.random.Generator

    def lit(self, albedo: Sequence[float], normal: Sequence[float], depth: float) -> np.ndarray:
        """Computes the visible RGB colour of a surface with a unit normal (x, y, z) at a distance in metres."""
        veil = VEIL_LIMIT * (1 - math.exp(-self.light.haze * depth))
        return np.asarray(albedo) * self.light.shade(normal) * (1 - veil) + self.light.horizon * veil

    def veiled(self, colours: np.ndarray, depth: float, shade: np.ndarray | float = 1.0) -> np.ndarray:
        """Applies the RGB factor `shade` and the haze of a distance in metres to float32 (H, W, 3) colours."""
        veil = float(self.light.veil(depth))
        rows, columns = colours.shape[:2]
        # Whole rows of repeated RGB factors, so that NumPy's inner loop is long instead of 3.
        factor = np.tile(np.broadcast_to(shade * (1 - veil), 3), columns).astype(np.float32)
        offset = np.tile(self.light.horizon * veil, columns).astype(np.float32)
        return (colours.reshape(rows, -1) * factor + offset).reshape(colours.shape)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)
