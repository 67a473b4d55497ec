"""Ground of a scene: layout of the classes, textures and shadows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from rass_mm.demo.scenes.canvas import CLASS_ID, Camera, Stage, blend, noise_patch, scaled, tint, world_noise, wrap

FAR = 300.0  # in metres; farther ground does not change


@dataclass(frozen=True)
class Lane:
    """Strip along the curve x = offset + slope * z + bend * z**2, in metres.

    `half` is half of its width. `across` swaps x and z.
    """

    offset: float
    slope: float
    bend: float
    half: float
    across: bool = False

    def lateral(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Computes the signed distance to the middle of the strip, in metres."""
        if self.across:
            x, z = z, x
        return x - (self.offset + self.slope * z + self.bend * z * z)

    def along(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Returns the position along the strip, in metres."""
        return x if self.across else z


@dataclass(frozen=True)
class Lake:
    """Area of water on the ground, in metres.

    Args:
        kind: 'behind' (beyond a shore that runs across the view), 'beside' (to one side of a shore that runs along the
            view) or 'oval'.
        where: (x, z) position of the shore or of the centre of the oval. 'behind' uses only z, and 'beside' only x.
        size: (x, z) amplitude of the wavy shoreline, or radii of the oval. 'behind' uses only z, and 'beside' only x.
        phase: phase of the irregular outline, in radians.
    """

    kind: str
    where: tuple[float, float]
    size: tuple[float, float]
    phase: float

    def covers(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Returns a boolean mask of the points under water."""
        if self.kind == 'behind':
            return z > self.where[1] + self.size[1] * (np.sin(x / 9 + self.phase) + 0.4 * np.sin(x / 2.3)) * 0.5
        if self.kind == 'beside':
            bank = np.abs(self.where[0]) + self.size[0] * (np.sin(z / 11 + self.phase) + 0.3 * np.sin(z / 2.7))
            return x * np.sign(self.where[0]) > bank
        radius = np.hypot((x - self.where[0]) / self.size[0], (z - self.where[1]) / self.size[1])
        return radius < 1 + 0.12 * np.sin(5 * np.arctan2(z - self.where[1], x - self.where[0]) + self.phase)


@dataclass(frozen=True)
class Terrain:
    """Layout of the ground.

    Args:
        roads: strips of class 'road'.
        paths: strips of class 'sidewalk'.
        lake: area of class 'water', if any.
        walk: width of the sidewalks on both sides of the roads in metres; 0 if there are none.
        base: class of the remaining ground.
        colours: RGB albedos and dimensions of the ground, see `ground_colours`.
    """

    roads: tuple[Lane, ...]
    paths: tuple[Lane, ...]
    lake: Lake | None
    walk: float
    base: str
    colours: dict[str, np.ndarray] = field(default_factory=dict)

    def zones(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Returns the uint8 class ids of points on the ground."""
        zones = np.full(np.broadcast_shapes(np.shape(x), np.shape(z)), CLASS_ID[self.base], np.uint8)
        if self.lake is not None:
            zones[self.lake.covers(x, z)] = CLASS_ID['water']
        for lane in self.paths:
            zones[np.abs(lane.lateral(x, z)) < lane.half] = CLASS_ID['sidewalk']
        gaps = [np.abs(lane.lateral(x, z)) - lane.half for lane in self.roads]
        if self.walk:
            for gap in gaps:
                zones[gap < self.walk] = CLASS_ID['sidewalk']
        for gap in gaps:
            zones[gap < 0] = CLASS_ID['road']
        return zones

    def at(self, x: float, z: float) -> str:
        """Returns the class name at a point."""
        zone = int(self.zones(np.asarray([x]), np.asarray([z]))[0])
        return next(name for name, index in CLASS_ID.items() if index == zone)


@dataclass
class _View:
    """Visible ground: its first image row, the coordinates of its pixels in metres and the contrast of fine texture."""

    start: int
    x: np.ndarray  # (H, W)
    z: np.ndarray  # (H, 1)
    sharp: np.ndarray  # (H, 1)


def _view(camera: Camera) -> _View:
    start = max(0, int(np.floor(camera.horizon)) + 1)
    rows = np.arange(start, camera.height, dtype=np.float32)[:, None] + 0.5
    z = np.minimum(camera.focal * camera.eye / (rows - camera.horizon), FAR).astype(np.float32)
    x = (np.arange(camera.width, dtype=np.float32)[None] + 0.5 - camera.centre) * (z / camera.focal)
    foreshortening = z * z / (camera.focal * camera.eye)  # metres covered by one row
    return _View(start, x, z, np.clip(0.25 / foreshortening, 0, 1).astype(np.float32))


def paint_ground(stage: Stage, terrain: Terrain, shadows: Sequence[np.ndarray]) -> None:
    """Paints everything below the horizon.

    Args:
        stage: stage to draw on; its canvas must contain the backdrop, which the water reflects.
        terrain: layout of the ground.
        shadows: shadow polygons, each (N, 2) in metres (x, z) on the ground.
    """
    view = _view(stage.camera)
    zones = terrain.zones(view.x, view.z)
    coarse = world_noise(view.x, view.z, 6.0)
    fine = world_noise(view.x, view.z, 24.0, 0.3) * view.sharp
    colours = np.zeros((*zones.shape, 3), np.float32)
    painters = {'grass': _grass, 'road': _road, 'sidewalk': _sidewalk}
    for name, painter in painters.items():
        mask = zones == CLASS_ID[name]
        if mask.any():
            cv2.copyTo(painter(stage, terrain, view, coarse, fine), mask.astype(np.uint8), colours)
    colours *= _light_on_ground(stage, view, shadows)
    water = zones == CLASS_ID['water']
    if water.any():
        cv2.copyTo(_water(stage, terrain, view), water.astype(np.uint8), colours)
    veil = np.repeat(stage.light.veil(view.z), zones.shape[1], 1)
    colours = scaled(colours, 1 - veil) + tint(veil, stage.light.horizon)
    layers = np.zeros(len(CLASS_ID), np.uint16)
    for name in ('water', 'grass', 'sidewalk', 'road'):
        layers[CLASS_ID[name]] = stage.canvas.begin(name)
    stage.canvas.image[view.start :] = colours
    stage.canvas.layer[view.start :] = layers[zones]


def _light_on_ground(stage: Stage, view: _View, shadows: Sequence[np.ndarray]) -> np.ndarray:
    """Computes the RGB light factor of each pixel, reduced in shadows of objects and clouds."""
    camera, light = stage.camera, stage.light
    dark = np.zeros(view.x.shape, np.uint8)
    for polygon in shadows:
        points = np.stack([polygon[:, 0], np.zeros(len(polygon)), polygon[:, 1]], 1)
        pixels = np.clip(camera.project(points) - (0, view.start), -8000, 8000)
        cv2.fillConvexPoly(dark, np.rint(pixels).astype(np.int32), 255)
    soft = cv2.blur(dark, (5, 3)).astype(np.float32) * np.float32(light.shadow / 255)
    clouds = np.clip(world_noise(view.x, view.z, 1.5, 1.6), -1, 1) * np.float32(0.12)
    return tint((1 - soft) * (1 + clouds), light.shade((0, 1, 0)))


def _grass(stage: Stage, terrain: Terrain, view: _View, coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Paints grass with patches of two tones, and upright blades nearby."""
    lush, dry = terrain.colours['grass'], terrain.colours['dry']
    blades = noise_patch(stage.rng, *view.x.shape, (1.6, 0.8), 0.3) * (0.4 + 0.6 * view.sharp)
    mix = np.clip(0.4 + 0.45 * coarse, 0, 1)
    return scaled(tint(mix, dry - lush, lush), 1 + 0.16 * fine + 0.13 * blades)


def _road(stage: Stage, terrain: Terrain, view: _View, coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Paints asphalt with worn line markings, or dirt."""
    surface = tint(1 + 0.09 * coarse + 0.10 * fine, terrain.colours['road'])
    if 'lines' not in terrain.colours:
        return surface
    paint = np.zeros(view.x.shape, bool)
    for lane in terrain.roads:
        side, along = lane.lateral(view.x, view.z), lane.along(view.x, view.z)
        elsewhere = [np.abs(other.lateral(view.x, view.z)) > other.half for other in terrain.roads if other is not lane]
        lines = (np.abs(side) < 0.09) & (wrap(along, 6) < 3.2)
        lines |= np.abs(np.abs(side) - lane.half + 0.35) < 0.07
        crossing = float(terrain.colours['crossing'][0])
        lines |= (np.abs(along - crossing) < 1.6) & (wrap(side, 1.1) < 0.55) & (np.abs(side) < lane.half - 0.4)
        for free in elsewhere:
            lines &= free
        paint |= lines
    worn = paint * np.clip(0.75 + 0.25 * coarse, 0.2, 1)
    return scaled(surface, 1 - worn) + tint(worn, terrain.colours['lines'])


def _sidewalk(stage: Stage, terrain: Terrain, view: _View, coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Paints slabs with joints, and a kerb along the road."""
    slab = float(terrain.colours['slab'][0])
    tone = 1 + 0.07 * coarse + 0.07 * fine
    if slab > 0:
        joints = (wrap(view.x, slab) < 0.07 * slab) | (wrap(view.z, slab) < 0.09 * slab)
        chequer = (np.floor(view.x / slab) + np.floor(view.z / slab)) % 2
        tone *= 1 - (np.float32(0.25) * joints + np.float32(0.07) * chequer) * view.sharp
    for lane in terrain.roads:
        gap = np.abs(lane.lateral(view.x, view.z)) - lane.half
        tone *= np.where(gap < 0.22, np.float32(1.18), np.float32(1))
    return tint(tone, terrain.colours['sidewalk'])


def _water(stage: Stage, terrain: Terrain, view: _View) -> np.ndarray:
    """Paints water: its own colour, the backdrop reflected and distorted by ripples, and highlights on the ripples."""
    camera, light = stage.camera, stage.light
    rows = np.arange(view.start, camera.height, dtype=np.float32)[:, None]
    ripple = world_noise(view.x, view.z * 0.35, 14.0, 0.3) * np.clip(view.sharp * 2, 0.15, 1)
    # At steep angles the water body is visible, at shallow angles the reflection.
    mirror = np.clip(0.85 - 0.8 * (rows - camera.horizon) / camera.focal, 0.2, 0.85)
    body = tint(1 + 0.12 * ripple, terrain.colours['water'] * light.shade((0, 1, 0)))
    if camera.horizon < 4:
        reflected = tint(np.ones_like(ripple), light.zenith)
    else:
        depth = rows - camera.horizon
        source = camera.horizon - depth * 0.9 + ripple * (1 + 0.05 * depth) * 2
        columns = np.arange(camera.width, dtype=np.float32)[None] + ripple * 2
        source = np.clip(source, 0, camera.horizon - 1).astype(np.float32)
        reflected = cv2.remap(stage.canvas.image, columns, source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mirror = np.clip(mirror + 0.10 * ripple, 0, 1).astype(np.float32)
    return blend(body, reflected, mirror) + tint(np.clip(ripple - 1.3, 0, 1), 0.3 * light.colour)
