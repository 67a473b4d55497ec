"""Labelled outdoor scenes, drawn from a seed: what a fresh machine trains and tests on without downloads."""

import cv2
import numpy as np

from rass_mm.embedded.drawing.backdrop import (
    paint_hill,
    paint_mountain,
    paint_sky,
    paint_treeline,
    sample_camera,
    sample_light,
)
from rass_mm.embedded.drawing.canvas import SCENE_CLASSES, SUPERSAMPLING, Canvas, Stage
from rass_mm.embedded.drawing.ground import paint_ground
from rass_mm.embedded.drawing.layouts import sample_plan
from rass_mm.embedded.drawing.plan import Plan
from rass_mm.embedded.drawing.shapes import foliage

GENERATOR_VERSION = 1
PALETTE = (
    (70, 130, 180),
    (152, 251, 152),
    (128, 64, 128),
    (244, 35, 232),
    (70, 70, 70),
    (107, 142, 35),
    (0, 0, 142),
    (220, 20, 60),
    (153, 153, 153),
    (190, 153, 153),
    (61, 230, 250),
    (143, 140, 120),
)


def make_scene(seed: int, height: int = 128, width: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene.

    Args:
        seed: any non-negative integer; the same seed and size give the same bytes.
        height: pixels, 32 to 512.
        width: pixels, 32 to 512.

    Returns:
        The image, uint8 (height, width, 3) BGR, and the label, uint8 (height, width), an index into
        `SCENE_CLASSES` for every pixel.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    tall, wide = height * SUPERSAMPLING, width * SUPERSAMPLING
    light, camera = sample_light(rng), sample_camera(rng, tall, wide)
    stage = Stage(camera, light, Canvas(tall, wide), rng)
    plan = sample_plan(stage)
    _paint_backdrop(plan)
    paint_ground(stage, plan.terrain, [thing.shadow for thing in plan.things if thing.shadow is not None])
    for thing in sorted(plan.things, key=lambda thing: -thing.depth):
        thing.draw()
    return _develop(stage, height, width), stage.canvas.labels()


def _paint_backdrop(plan: Plan) -> None:
    stage, open_land = plan.stage, plan.open_land
    paint_sky(stage)
    if stage.camera.horizon < 4:
        return
    likely = 0.7 if open_land else 0.25
    if stage.chance(likely):
        for share, depth in ((stage.uniform(0.12, 0.3), 420), (stage.uniform(0.04, 0.14), 220)):
            if stage.chance(0.75):
                paint_mountain(stage, share, depth)
    if open_land and stage.chance(0.5):
        paint_hill(stage, stage.uniform(0.02, 0.10), plan.terrain.colours['grass'])
    if stage.chance(0.65):
        paint_treeline(stage, stage.uniform(0.015, 0.07), foliage(stage.rng, plan.season))


def _develop(stage: Stage, height: int, width: int) -> np.ndarray:
    """Averages to the final size and applies the colour cast of the hour."""
    small = cv2.resize(stage.canvas.image, (width, height), interpolation=cv2.INTER_AREA)
    small = np.clip(small * stage.light.cast, 0, 1) ** np.float32(0.85)
    return np.ascontiguousarray(np.rint(small[..., ::-1] * 255).astype(np.uint8))
