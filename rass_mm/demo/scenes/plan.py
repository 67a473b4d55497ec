"""Plan of a scene before it is drawn: the terrain and a list of objects on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rass_mm.demo.scenes.canvas import Stage
from rass_mm.demo.scenes.ground import Lane, Terrain
from rass_mm.demo.scenes.shapes import draw_fence, draw_person, draw_pole, draw_tree, foliage
from rass_mm.demo.scenes.solids import Pose, building_style, draw_building, draw_car

_GRASS = {
    'summer': ((0.20, 0.34, 0.09), (0.40, 0.42, 0.17)),
    'autumn': ((0.30, 0.34, 0.12), (0.48, 0.36, 0.16)),
    'dry': ((0.46, 0.42, 0.22), (0.62, 0.54, 0.32)),
}
_WALK = ((0.60, 0.58, 0.55), (0.56, 0.36, 0.28), (0.68, 0.60, 0.48), (0.40, 0.40, 0.41), (0.50, 0.50, 0.46))
_WATER = ((0.10, 0.24, 0.28), (0.18, 0.26, 0.16), (0.07, 0.17, 0.30), (0.28, 0.25, 0.18))
_FENCE = ((0.42, 0.30, 0.20), (0.82, 0.82, 0.80), (0.24, 0.25, 0.25), (0.50, 0.48, 0.44), (0.20, 0.30, 0.20))


@dataclass
class Thing:
    """Object on the ground. Objects are drawn in order of `depth` (in metres), the farthest first.

    `shadow` is a polygon (N, 2) of points (x, z) on the ground in metres, or None.
    """

    depth: float
    draw: Callable[[], None]
    shadow: np.ndarray | None = None


@dataclass
class Plan:
    """Plan of a scene, to which objects are added.

    Args:
        stage: stage to draw on.
        terrain: layout of the ground.
        season: 'summer', 'autumn' or 'dry'.
        things: objects on the ground.
        solids: areas of houses and cars, as (x, z, half extent along x, half extent along z) in metres.
        open_land: whether the plan has no buildings.
    """

    stage: Stage
    terrain: Terrain
    season: str
    things: list[Thing] = field(default_factory=list)
    solids: list[tuple[float, float, float, float]] = field(default_factory=list)
    open_land: bool = True

    def scatter(self, allowed: Sequence[str], near: float, far: float) -> tuple[float, float] | None:
        """Samples a visible position outside of houses and cars, uniformly over image rows.

        Args:
            allowed: classes of the ground on which the position may be.
            near: minimum distance in metres.
            far: maximum distance in metres.

        Returns:
            (x, z) in metres, or None if no position was found.
        """
        camera, rng = self.stage.camera, self.stage.rng
        near = max(near, camera.nearest * 1.02)
        far = min(far, camera.depth_at(0)) if camera.horizon < 0 else far
        for _ in range(6):
            z = 1 / rng.uniform(1 / max(far, near + 1), 1 / near)
            x = rng.uniform(-0.97, 0.97) * camera.half_view(z)
            clear = all(abs(x - sx) > rx or abs(z - sz) > rz for sx, sz, rx, rz in self.solids)
            if clear and self.terrain.at(x, z) in allowed:
                return float(x), float(z)
        return None

    def add(self, depth: float, draw: Callable[[], None], shadow: np.ndarray | None = None) -> None:
        self.things.append(Thing(depth, draw, shadow))

    def shadow_of(self, x: float, z: float, half: float, height: float) -> np.ndarray:
        """Computes the shadow polygon, (4, 2) in metres, of an upright object. The length of the shadow is limited.

        Args:
            x: distance of the object to the right of the camera, in metres.
            z: distance of the object in front of the camera, in metres.
            half: half the width of the object, in metres.
            height: height of the object, in metres.
        """
        sun = self.stage.light.sun
        away = -np.array([sun[0], sun[2]]) / max(sun[1], 0.2) * height
        side = np.array([sun[2], -sun[0]]) / max(np.hypot(sun[0], sun[2]), 1e-6) * half
        base = np.array([x, z])
        points = np.stack([base - side, base + side, base + side + away, base - side + away])
        points[:, 1] = np.maximum(points[:, 1], 0.8)
        return points

    def tree(self, x: float, z: float, height: float | None = None, kind: str | None = None) -> None:
        rng = self.stage.rng
        kind = kind or str(rng.choice(('round', 'poplar', 'conifer', 'bush', 'bare'), p=(0.5, 0.1, 0.17, 0.16, 0.07)))
        tall = height or float(rng.uniform(4, 11))
        tall = rng.uniform(0.6, 1.8) if kind == 'bush' else tall
        albedo = (
            foliage(rng, self.season) if kind != 'conifer' else np.asarray((0.10, 0.20, 0.11)) * rng.uniform(0.8, 1.3)
        )
        self.add(z, lambda: draw_tree(self.stage, x, z, tall, kind, albedo), self.shadow_of(x, z, 0.2 * tall, tall))

    def person(self, x: float, z: float) -> None:
        height = self.stage.uniform(1.5, 1.9) if self.stage.chance(0.85) else self.stage.uniform(1.0, 1.4)
        self.add(z, lambda: draw_person(self.stage, x, z, height), self.shadow_of(x, z, 0.22, height))

    def pole(self, x: float, z: float, kind: str) -> None:
        low, high = {'lamp': (4.5, 7.5), 'signal': (3, 4), 'mast': (7, 9), 'post': (1, 3)}[kind]
        height = self.stage.uniform(low, high)
        self.add(z, lambda: draw_pole(self.stage, x, z, height, kind), self.shadow_of(x, z, 0.08, height))

    def car(self, x: float, z: float, yaw: float) -> None:
        pose = Pose(x, z, yaw + (np.pi if self.stage.chance(0.5) else 0))
        self.solids.append((x, z, *((2.9, 1.4) if abs(pose.sin) > 0.7 else (1.4, 2.9))))
        self.add(z, lambda: draw_car(self.stage, pose), self.shadow_of(x, z, 1.6, 1.5))

    def building(self, pose: Pose, size: tuple[float, float, float], gable: bool) -> None:
        style = building_style(self.stage)
        sin, cos = abs(float(pose.sin)), abs(float(pose.cos))
        reach = 0.5 * (cos * size[0] + sin * size[1])
        self.solids.append((pose.x, pose.z, 0.5 * (sin * size[0] + cos * size[1]) + 0.3, reach + 0.3))
        self.open_land = False
        shadow = self.shadow_of(pose.x, pose.z, 0.5 * max(size[:2]), size[2])
        self.add(pose.z + reach, lambda: draw_building(self.stage, pose, size, gable, style), shadow)

    def fence(self, points: Sequence[tuple[float, float]]) -> None:
        """Adds a fence along a polyline of (x, z) points, without panels on roads and in water."""
        rng = self.stage.rng
        kind = str(rng.choice(('rail', 'picket', 'board'), p=(0.3, 0.4, 0.3)))
        albedo, height = np.asarray(_FENCE[rng.integers(len(_FENCE))]) * rng.uniform(0.8, 1.15), rng.uniform(0.9, 1.7)
        for start, end in zip(points[:-1], points[1:], strict=True):
            x, z = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
            if min(start[1], end[1]) < 1.2 or self.terrain.at(x, z) in ('road', 'water'):
                continue
            self.add(z, lambda a=start, b=end: draw_fence(self.stage, a, b, height, kind, albedo))


def ground_colours(stage: Stage, season: str, dirt: bool) -> dict[str, np.ndarray]:
    """Samples the appearance of the ground.

    Args:
        stage: provides the random generator.
        season: 'summer', 'autumn' or 'dry'.
        dirt: whether roads are dirt instead of asphalt.

    Returns:
        RGB albedos by name, and dimensions in metres as arrays with one element: 'slab' is the side of a paving slab (0
        without slabs), and 'crossing' is the position of a zebra crossing along the road (-99 without a crossing).
        'lines' and 'crossing' exist only for roads with line markings.
    """
    rng = stage.rng
    grass, dry = (np.asarray(tone) * rng.uniform(0.8, 1.2) for tone in _GRASS[season])
    colours = {
        'grass': grass,
        'dry': dry,
        'road': np.asarray((0.48, 0.39, 0.28) if dirt else (1.0, 0.98, 1.0))
        * rng.uniform(*((0.7, 1.2) if dirt else (0.2, 0.5))),
        'sidewalk': np.asarray(_WALK[rng.integers(len(_WALK))]) * rng.uniform(0.8, 1.15),
        'slab': np.array([rng.choice((0.0, 0.5, 0.8, 1.2))]),
        'water': np.asarray(_WATER[rng.integers(len(_WATER))]) * rng.uniform(0.8, 1.3),
    }
    if not dirt and rng.random() < 0.85:
        colours['lines'] = np.asarray((0.85, 0.85, 0.82) if rng.random() < 0.8 else (0.85, 0.68, 0.2))
        colours['crossing'] = np.array([rng.uniform(6, 22) if rng.random() < 0.4 else -99.0])
    return colours


def along(lane: Lane, side: float, near: float, far: float, step: float) -> list[tuple[float, float]]:
    """Returns points (x, z) from `near` to `far` along a lane, every `step` metres at the lateral distance `side`."""
    points = []
    for t in np.arange(near, far, step):
        other = float(lane.offset + lane.slope * t + lane.bend * t * t + side)
        points.append((float(t), other) if lane.across else (other, float(t)))
    return points
