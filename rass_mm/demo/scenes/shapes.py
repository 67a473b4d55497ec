"""Upright objects: trees, persons, poles and fences."""

import cv2
import numpy as np

from rass_mm.demo.scenes.canvas import Stage, noise_patch, scaled, tint

_SKIN = ((0.87, 0.68, 0.55), (0.72, 0.52, 0.38), (0.45, 0.30, 0.21), (0.93, 0.76, 0.66))
_FOLIAGE = {
    'summer': ((0.20, 0.33, 0.10), (0.13, 0.26, 0.10), (0.30, 0.42, 0.13), (0.17, 0.28, 0.16)),
    'autumn': ((0.62, 0.36, 0.08), (0.55, 0.20, 0.08), (0.66, 0.54, 0.14), (0.33, 0.36, 0.12)),
    'dry': ((0.34, 0.36, 0.16), (0.28, 0.30, 0.17), (0.42, 0.40, 0.22), (0.22, 0.27, 0.13)),
}


def foliage(rng: np.random.Generator, season: str) -> np.ndarray:
    """Samples an RGB albedo of leaves in a season."""
    colours = _FOLIAGE[season]
    return np.asarray(colours[rng.integers(len(colours))]) * rng.uniform(0.8, 1.2, 3)


def _lobes(stage: Stage, kind: str, count: int) -> np.ndarray:
    """Samples the round parts of a crown in a unit box, as rows of (x, y, radius) with y = 0 at the top."""
    lobes = np.empty((count, 3))
    if kind == 'poplar':
        y = stage.rng.uniform(0.08, 0.92, count)
        lobes[:, 0], lobes[:, 1], lobes[:, 2] = stage.rng.normal(0.5, 0.1, count), y, 0.05 + 0.2 * np.sin(np.pi * y)
    else:
        angle, radius = stage.rng.uniform(0, 2 * np.pi, count), np.sqrt(stage.rng.random(count)) * 0.33
        lobes[:, 0], lobes[:, 1] = 0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)
        lobes[:, 2] = stage.rng.uniform(0.14, 0.25, count)
    margin = lobes[:, 2:] + 0.03  # a lobe that leaves the box would have a straight edge
    lobes[:, :2] = np.clip(lobes[:, :2], margin, 1 - margin)
    return lobes


def _crown(stage: Stage, kind: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the coverage and the brightness of the crown of a tree, both float32 (height, width)."""
    cover = np.zeros((height, width), np.float32)
    tone = np.full((height, width), 0.5, np.float32)
    if kind == 'conifer':
        for tier in range(5):
            top, bottom, half = tier * 0.17, 0.3 + tier * 0.175, 0.14 + 0.09 * tier
            points = np.array([(0.5 - half, bottom), (0.5, top), (0.5 + half, bottom)]) * (width, height)
            cv2.fillConvexPoly(cover, np.rint(points).astype(np.int32), 1.0)
            cv2.fillConvexPoly(tone, np.rint(points - (0, 0.05 * height)).astype(np.int32), 0.5 + 0.09 * (tier % 3))
    else:
        side = float(stage.light.sun[0])
        for x, y, radius in _lobes(stage, kind, 14):
            centre = (round(x * width), round(y * height))
            axes = (max(1, round(radius * width)), max(1, round(radius * height)))
            bright = 0.8 - 0.5 * y + 0.5 * side * (x - 0.5) + stage.uniform(-0.12, 0.12)
            cv2.ellipse(cover, centre, axes, 0, 0, 360, 1.0, -1)
            cv2.ellipse(tone, centre, axes, 0, 0, 360, bright, -1)
    blur = max(3, int(min(height, width) * 0.09) | 1)
    return cv2.blur(cover, (blur, blur)), cv2.blur(tone, (blur // 2 | 1, blur // 2 | 1))


def draw_tree(stage: Stage, x: float, z: float, height: float, kind: str, albedo: np.ndarray) -> None:
    """Draws a tree or a bush.

    Args:
        stage: stage to draw on.
        x: distance to the right of the camera, in metres.
        z: distance in front of the camera, in metres.
        height: height of the tree, in metres.
        kind: 'round', 'poplar', 'conifer', 'bush' or 'bare'.
        albedo: RGB colour of the leaves, not used for 'bare'.
    """
    stage.canvas.begin('tree')
    if kind == 'bare':
        _bare_tree(stage, x, z, height)
        return
    spread, low = {'round': (0.75, 0.28), 'poplar': (0.32, 0.12), 'conifer': (0.5, 0.1), 'bush': (1.5, 0.0)}[kind]
    scale = stage.camera.focal / z
    ((u, v),) = stage.camera.project([(x, 0, z)])
    if low:
        _trunk(stage, x, z, height, low)
    width, tall = spread * height * scale, height * (1 - low) * scale
    left, top = u - width / 2, v - height * scale
    _leaves(stage, (left, top, width, tall), kind, z, albedo)


def _trunk(stage: Stage, x: float, z: float, height: float, low: float) -> None:
    half, rise = 0.022 * height + 0.04, height * (low + 0.25)
    bark = np.asarray((0.30, 0.23, 0.17)) * stage.uniform(0.6, 1.4)
    for left, right, normal in ((-1, 0.1, (-0.8, 0, -0.6)), (0.1, 1, (0.8, 0, -0.6))):
        quad = [
            (x + left * half, 0, z),
            (x + right * half, 0, z),
            (x + right * half * 0.6, rise, z),
            (x + left * half * 0.6, rise, z),
        ]
        stage.canvas.polygon(stage.camera.project(quad), stage.lit(bark, normal, z))


def _leaves(stage: Stage, box: tuple[float, float, float, float], kind: str, z: float, albedo: np.ndarray) -> None:
    """Draws the crown of a tree into a box (left, top, width, height) in pixels."""
    left, top, width, tall = box
    rows, columns = max(4, min(round(tall), 900)), max(4, min(round(width), 900))
    x0, y0 = round(left), round(top)
    visible = stage.canvas.clip(x0, y0, x0 + columns - 1, y0 + rows - 1)
    if visible is None:
        return
    cover, tone = _crown(stage, kind, rows, columns)
    grain = max(0.7, min(rows, columns) / 160)
    leaves = noise_patch(stage.rng, rows, columns, (grain, grain), 0.3)
    inside = (slice(visible[1] - y0, visible[3] - y0), slice(visible[0] - x0, visible[2] - x0))
    cover, tone, leaves = cover[inside], tone[inside], leaves[inside]
    mask = (cover + 0.22 * leaves > 0.5).astype(np.uint8)
    shade = tint(tone, 0.9 * albedo * stage.light.colour, 0.9 * albedo * stage.light.ambient)
    speckle = np.maximum(0.2, 0.75 + 0.6 * (tone - 0.5) + 0.36 * leaves)
    stage.canvas.paste(visible[0], visible[1], stage.veiled(scaled(shade, speckle), z), mask)


def _bare_tree(stage: Stage, x: float, z: float, height: float) -> None:
    """Draws a leafless tree whose branches fork repeatedly."""
    scale = stage.camera.focal / z
    colour = stage.lit(np.asarray((0.28, 0.23, 0.19)) * stage.uniform(0.7, 1.3), (0, 0, -1), z)
    tips = [(*stage.camera.project([(x, 0, z)])[0], 0.0, height * 0.3 * scale)]
    thickness = 0.06 * height * scale
    for _ in range(6):
        grown = []
        for u, v, angle, length in tips:
            end = (u + length * np.sin(angle), v - length * np.cos(angle))
            stage.canvas.stroke(np.array([(u, v), end]), colour, thickness)
            if length > 3:
                grown += [
                    (*end, angle + turn * stage.uniform(0.25, 0.7), length * stage.uniform(0.62, 0.85))
                    for turn in (-1, 1)
                ]
        tips, thickness = grown, thickness * 0.6


def draw_person(stage: Stage, x: float, z: float, height: float) -> None:
    """Draws a walking or standing person about `height` metres tall."""
    rng = stage.rng
    unit = height / 1.75
    shirt, legs = (np.clip(rng.uniform(0.05, 0.85) + rng.uniform(-0.3, 0.3, 3), 0.03, 0.92) for _ in range(2))
    skin = np.asarray(_SKIN[rng.integers(len(_SKIN))])
    hair = np.asarray((0.16, 0.11, 0.08)) * rng.uniform(0.4, 3.5)
    stride, swing = rng.uniform(0.02, 0.3), rng.uniform(0.0, 0.22)
    stage.canvas.begin('person')

    def part(points: list[tuple[float, float]], albedo: np.ndarray, side: float = 0) -> None:
        world = [(x + a * unit, b * unit, z) for a, b in points]
        stage.canvas.polygon(stage.camera.project(world), stage.lit(albedo, (0.6 * side, 0, -0.8), z))

    for side in (-1, 1):
        foot = side * stride
        part([(side * 0.1 - 0.08, 0.9), (side * 0.1 + 0.08, 0.9), (foot + 0.07, 0.05), (foot - 0.07, 0.05)], legs, side)
        part([(foot - 0.07, 0), (foot + 0.12, 0), (foot + 0.07, 0.09), (foot - 0.07, 0.09)], hair * 0.6)
        hand = side * (0.27 + swing)
        part(
            [(side * 0.2, 1.44), (side * 0.27, 1.42), (hand + side * 0.05, 0.82), (hand - side * 0.05, 0.82)],
            shirt * 0.85,
            side,
        )
    coat = 0.62 if rng.random() < 0.3 else 0.86
    part([(-0.2, coat), (0.04, coat), (0.04, 1.47), (-0.23, 1.45)], shirt, -1)
    part([(0.02, coat), (0.2, coat), (0.23, 1.45), (0.02, 1.47)], shirt, 1)
    part([(-0.06, 1.42), (0.06, 1.42), (0.06, 1.55), (-0.06, 1.55)], skin)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    part(list(zip(0.115 * np.cos(angle), 1.645 + 0.135 * np.sin(angle), strict=True)), hair)
    if rng.random() < 0.6:  # faces the viewer
        part(list(zip(0.09 * np.cos(angle), 1.615 + 0.105 * np.sin(angle), strict=True)), skin)


def draw_pole(stage: Stage, x: float, z: float, height: float, kind: str) -> None:
    """Draws a street lamp ('lamp'), a traffic light ('signal'), a mast with crossbars ('mast') or a post ('post')."""
    scale = stage.camera.focal / z
    tone = np.asarray(
        ((0.45, 0.46, 0.47), (0.14, 0.15, 0.15), (0.36, 0.28, 0.21), (0.15, 0.28, 0.20))[stage.rng.integers(4)]
    )
    colour = stage.lit(tone, (0.3, 0, -0.9), z)
    width = {'lamp': 0.13, 'signal': 0.13, 'mast': 0.24, 'post': 0.1}[kind] * scale
    arm = float(np.sign(-x) or 1)
    stage.canvas.begin('pole')

    def line(points: list[tuple[float, float]], thickness: float, shown: np.ndarray) -> None:
        stage.canvas.stroke(stage.camera.project([(x + a, b, z) for a, b in points]), shown, thickness)

    line([(0, 0), (0, height)], width, colour)
    if kind == 'lamp':
        line([(0, height), (arm * 0.5, height + 0.25), (arm * 1.5, height + 0.3)], width * 0.7, colour)
        lamp = colour + stage.light.lamps * np.asarray((1.2, 1.0, 0.6))
        line([(arm * 1.2, height + 0.26), (arm * 1.9, height + 0.26)], 0.2 * scale, lamp)
    elif kind == 'mast':
        for level in (0.3, 1.1):
            line([(-0.9, height - level), (0.9, height - level)], 0.13 * scale, colour)
    elif kind == 'signal':
        line([(0, height - 0.9), (0, height)], 0.36 * scale, stage.lit((0.06, 0.07, 0.06), (0, 0, -1), z))
        level, shown = ((0.2, (0.95, 0.15, 0.1)), (0.75, (0.15, 0.85, 0.4)))[stage.rng.integers(2)]
        line([(0, height - level), (0, height - level + 0.06)], 0.2 * scale, np.asarray(shown))


def draw_fence(
    stage: Stage, start: tuple[float, float], end: tuple[float, float], height: float, kind: str, albedo: np.ndarray
) -> None:
    """Draws a fence panel from one point (x, z) to another.

    The kinds are 'rail' (posts and bars), 'picket' (with gaps) and 'board' (closed).
    """
    a, b = np.asarray(start, float), np.asarray(end, float)
    depth = float(a[1] + b[1]) / 2
    direction = (b - a) / max(np.linalg.norm(b - a), 1e-6)
    normal = np.array((-direction[1], 0, direction[0]))
    normal *= -np.sign(np.dot(normal[[0, 2]], (a + b) / 2)) or 1
    stage.canvas.begin('fence')

    def panel(near: float, far: float, low: float, high: float, tone: float) -> None:
        p, q = a + (b - a) * near, a + (b - a) * far
        quad = [(p[0], low, p[1]), (q[0], low, q[1]), (q[0], high, q[1]), (p[0], high, p[1])]
        stage.canvas.polygon(stage.camera.project(quad), stage.lit(albedo * tone, normal, depth))

    if kind == 'board':
        for index in range(6):
            panel(index / 6, (index + 1) / 6, 0, height, stage.uniform(0.82, 1.1))
    else:
        for level in (0.32, 0.8) if kind == 'picket' else (0.28, 0.6, 0.92):
            panel(0, 1, height * level - 0.07, height * level + 0.06, 0.9)
        if kind == 'picket':
            for index in range(8):
                panel(index / 8, index / 8 + 0.085, 0, height, stage.uniform(0.9, 1.1))
    panel(0, 0.06, 0, height * 1.08, 0.8)
