"""Objects with flat faces: buildings and cars, drawn in perspective from boxes."""

from collections.abc import Sequence

import cv2
import numpy as np

from rass_mm.demo.scenes.canvas import Stage, noise_patch, tint

_WALLS = (
    (0.55, 0.28, 0.21), (0.66, 0.38, 0.28), (0.78, 0.72, 0.60), (0.84, 0.82, 0.78), (0.52, 0.52, 0.53),
    (0.40, 0.42, 0.45), (0.80, 0.66, 0.42), (0.62, 0.70, 0.74), (0.70, 0.55, 0.50), (0.48, 0.55, 0.44),
    (0.33, 0.27, 0.22), (0.88, 0.86, 0.82),
)  # fmt: skip
_ROOFS = ((0.45, 0.22, 0.16), (0.30, 0.29, 0.30), (0.38, 0.30, 0.25), (0.52, 0.50, 0.47), (0.26, 0.33, 0.28))
_PAINTS = (
    (0.75, 0.76, 0.78), (0.90, 0.90, 0.88), (0.07, 0.07, 0.08), (0.35, 0.36, 0.38), (0.60, 0.08, 0.07),
    (0.10, 0.20, 0.48), (0.14, 0.34, 0.17), (0.72, 0.60, 0.15), (0.40, 0.28, 0.18), (0.45, 0.58, 0.66),
    (0.30, 0.42, 0.20), (0.78, 0.40, 0.12),
)  # fmt: skip
# Corners of a box as (length, width, up): the footprint in order, first at the bottom, then at the top.
_BOX = np.array([(*corner, up) for up in (0, 1) for corner in ((-1, -1), (-1, 1), (1, 1), (1, -1))], float)
# Corner indices and normal (length, width, up) of each face; seen from outside, all have the same orientation.
_FACES = (
    ((0, 1, 5, 4), (-1, 0, 0)),
    ((1, 2, 6, 5), (0, 1, 0)),
    ((2, 3, 7, 6), (1, 0, 0)),
    ((3, 0, 4, 7), (0, -1, 0)),
    ((4, 5, 6, 7), (0, 0, 1)),
)


class Pose:
    """Position and heading of an object. Maps object coordinates (length, width, up) to world coordinates (x, y, z).

    Args:
        x: distance of the object to the right of the camera, in metres.
        z: distance of the object in front of the camera, in metres.
        yaw: angle from the z axis to the length axis of the object, in radians.
    """

    def __init__(self, x: float, z: float, yaw: float) -> None:
        self.x, self.z = x, z
        self.sin, self.cos = np.sin(yaw), np.cos(yaw)

    def turn(self, vectors: np.ndarray) -> np.ndarray:
        """Rotates (N, 3) vectors from the axes of the object to those of the world."""
        length, width, up = np.asarray(vectors, float).reshape(-1, 3).T
        turned = np.empty((len(length), 3))
        turned[:, 0] = length * self.sin + width * self.cos
        turned[:, 1] = up
        turned[:, 2] = length * self.cos - width * self.sin
        return turned

    def place(self, points: np.ndarray) -> np.ndarray:
        """Rotates and translates (N, 3) points from the coordinates of the object to those of the world."""
        return self.turn(points) + (self.x, 0, self.z)


def visible(quad: np.ndarray) -> bool:
    """Returns whether a projected face, (4, 2) in pixels, shows its outer side."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad.tolist()
    return (cx - ax) * (dy - by) - (cy - ay) * (dx - bx) < 0


def _facade(stage: Stage, size: tuple[float, float], density: float, style: dict) -> np.ndarray:
    """Draws the albedo of a wall with windows, float32 (h, w, 3), with the first row at the top.

    Args:
        stage: provides the random generator and the time of day.
        size: width and height in metres.
        density: texture pixels per metre.
        style: style of the building, see `building_style`.
    """
    columns, rows = (int(np.clip(round(metres * density), 2, 200)) for metres in size)
    x = (np.arange(columns, dtype=np.float32) + 0.5) * (size[0] / columns)
    y = size[1] - (np.arange(rows, dtype=np.float32) + 0.5) * (size[1] / rows)
    tone = 1 + 0.05 * noise_patch(stage.rng, rows, columns, (1, 1), 1.0)
    if style['brick'] and density > 4:
        courses = np.floor(y / 0.3)
        joints = (np.mod(y, 0.3) < 0.09)[:, None] | (np.mod(x[None] + 0.3 * (courses % 2)[:, None], 0.6) < 0.09)
        tone = tone * np.where(joints, np.float32(1.22), np.float32(1))
    wall = tint(tone, style['wall'])
    bays, floors = max(1, round(size[0] / style['bay'])), max(1, round(size[1] / style['floor']))
    u, v = x * (bays / size[0]), y * (floors / size[1])
    across, up = np.abs(u % 1 - 0.5) * 2, np.abs(v % 1 - 0.52) * 2
    frame = (across < style['glass'][0] + 0.14)[None] & (up < style['glass'][1] + 0.14)[:, None]
    glass = (across < style['glass'][0])[None] & (up < style['glass'][1])[:, None]
    cv2.copyTo(np.full_like(wall, style['trim']), frame.astype(np.uint8), wall)
    panes = np.float32(0.6) + stage.rng.random((floors, bays), np.float32) * np.float32(0.8)
    colours = style['pane'].astype(np.float32) * panes[..., None]
    lamps = stage.rng.random((floors, bays)) < stage.light.lamps
    colours[lamps] = (2.2, 1.7, 0.8)  # brighter than any albedo, because lit windows emit light
    cells = colours[np.minimum(v.astype(int), floors - 1)][:, np.minimum(u.astype(int), bays - 1)]
    cv2.copyTo(cells, glass.astype(np.uint8), wall)
    if style['shop']:
        wall[(y < style['floor'] * 0.92) & (y > style['floor'] * 0.78)] = style['sign']
    return wall


def building_style(stage: Stage) -> dict:
    """Samples the colours and dimensions that all walls of a building share."""
    rng = stage.rng
    tower = stage.chance(0.18)
    wall = np.asarray(_WALLS[rng.integers(len(_WALLS))]) * rng.uniform(0.8, 1.12)
    return {
        'wall': wall,
        'brick': wall[0] > wall[2] * 1.25 and not tower,
        'bay': rng.uniform(1.3, 1.8) if tower else rng.uniform(2.0, 3.6),
        'floor': rng.uniform(2.7, 3.4),
        'glass': rng.uniform((0.72, 0.6), (0.9, 0.85)) if tower else rng.uniform((0.3, 0.4), (0.55, 0.62)),
        'trim': (wall * 0.75 if stage.chance(0.4) else np.full(3, rng.uniform(0.75, 0.92))).astype(np.float32),
        'pane': np.asarray(((0.16, 0.20, 0.26), (0.30, 0.38, 0.46), (0.10, 0.10, 0.11))[rng.integers(3)]),
        'shop': stage.chance(0.3),
        'sign': rng.uniform(0.1, 0.8, 3).astype(np.float32),
        'roof': np.asarray(_ROOFS[rng.integers(len(_ROOFS))]) * rng.uniform(0.85, 1.15),
    }


def _textured(stage: Stage, quad: np.ndarray, texture: np.ndarray) -> None:
    """Draws a texture on a projected quad, (4, 2): bottom left, bottom right, top right and top left corner."""
    x0, y0, x1, y1 = stage.canvas.clip(*quad.min(0), *quad.max(0))
    rows, columns = texture.shape[:2]
    corners = np.array([(0, rows), (columns, rows), (columns, 0), (0, 0)], np.float32) - np.float32(0.5)
    target = (quad - (x0, y0)).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target)
    patch = cv2.warpPerspective(texture, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REPLICATE)
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(target * 8).astype(np.int32), 1, shift=3)
    stage.canvas.paste(x0, y0, patch, mask)


def draw_building(stage: Stage, pose: Pose, size: tuple[float, float, float], gable: bool, style: dict) -> None:
    """Draws a house or a block of flats.

    Args:
        stage: stage to draw on.
        pose: centre of the footprint and heading.
        size: length, width and wall height in metres.
        gable: whether the roof is pitched instead of flat.
        style: style of the building, see `building_style`.
    """
    half = np.array([size[0] / 2, size[1] / 2, size[2]])
    world = pose.place(_BOX * half)
    if world[:, 2].min() < 0.8:
        return
    stage.canvas.begin('building')
    pixels = stage.camera.project(world)
    if gable:
        _pitched_roof(stage, pose, size, style)
    for corners, normal in _FACES[:4]:
        quad = pixels[list(corners)]
        if not visible(quad) or stage.canvas.clip(*quad.min(0), *quad.max(0)) is None:
            continue
        depth = float(world[list(corners), 2].mean())
        metres = size[1] if normal[0] else size[0]
        density = np.clip(0.8 * stage.camera.focal / world[list(corners), 2].min(), 1.5, 8)
        texture = _facade(stage, (metres, size[2]), float(density), style)
        shade = stage.light.shade(pose.turn(np.asarray(normal))[0])
        _textured(stage, quad, stage.veiled(texture, depth, shade))


def _pitched_roof(stage: Stage, pose: Pose, size: tuple[float, float, float], style: dict) -> None:
    """Draws a pitched roof (overhanging slopes and gables) from far to near. The walls must be drawn after it."""
    length, width, height = size[0] / 2, size[1] / 2, size[2]
    ridge = height + width * 0.75
    out = 0.35
    eave = height - out * 0.75
    parts = []
    for side in (-1, 1):
        slope = [(-length - out, side * (width + out), eave), (length + out, side * (width + out), eave),
                 (length + out, 0, ridge), (-length - out, 0, ridge)]  # fmt: skip
        parts.append((slope, (0, side * 0.6, 0.8), style['roof']))
    for end in (-1, 1):
        triangle = [(end * length, -width, height), (end * length, width, height), (end * length, 0, ridge)]
        parts.append((triangle, (end, 0, 0), style['wall']))
    placed = [
        (pose.place(np.asarray(points)), pose.turn(np.asarray(normal))[0], tone) for points, normal, tone in parts
    ]
    for points, normal, tone in sorted(placed, key=lambda part: -part[0][:, 2].mean()):
        if points[:, 2].min() > 0.8:
            depth = float(points[:, 2].mean())
            stage.canvas.polygon(stage.camera.project(points), stage.lit(tone, normal, depth))


def draw_car(stage: Stage, pose: Pose) -> None:
    """Draws a saloon car, a van or a small bus with windows, wheels and lamps."""
    rng = stage.rng
    kind = rng.choice(3, p=(0.72, 0.2, 0.08))
    length, width, waist, top = ((2.15, 0.88, 0.85, 1.45), (2.4, 0.98, 1.05, 2.1), (4.2, 1.2, 1.2, 2.9))[kind]
    paint = np.asarray(_PAINTS[rng.integers(len(_PAINTS))]) * rng.uniform(0.8, 1.15)
    body = _BOX * (length, width, waist - 0.28) + (0, 0, 0.28)
    taper = np.where(_BOX[:, 2:] > 0, 0.62 if kind == 0 else 0.97, 0.86 if kind == 0 else 1.0)
    cabin = _BOX * (length, width * 0.94, top - waist) * np.concatenate([taper, np.sqrt(taper), np.ones_like(taper)], 1)
    cabin += (-0.12 if kind == 0 else 0, 0, waist)
    if pose.place(np.concatenate([body, cabin]))[:, 2].min() < 1.0:
        return
    stage.canvas.begin('car')
    _wheels(stage, pose, length, width, beside=False)
    _solid(stage, pose, body, paint)
    _wheels(stage, pose, length, width, beside=True)
    _lamps(stage, pose, length, width, waist)
    _solid(stage, pose, cabin, paint, window=(0.07, 0.14, 0.22))


def _solid(
    stage: Stage, pose: Pose, corners: np.ndarray, paint: np.ndarray, window: Sequence[float] | None = None
) -> None:
    """Draws the visible faces of a box. With the RGB colour `window`, each upright face has a pane of glass."""
    world = pose.place(corners)
    pixels, depth = stage.camera.project(world), float(world[:, 2].mean())
    for indices, normal in _FACES:
        quad = pixels[list(indices)]
        if not visible(quad):
            continue
        turned = pose.turn(np.asarray(normal))[0]
        stage.canvas.polygon(quad, stage.lit(paint, turned, depth))
        if window is not None and not normal[2]:
            middle = quad.mean(0)
            pane = np.asarray(window) + 0.35 * stage.light.zenith * (0.4 + 0.6 * abs(normal[0]))
            stage.canvas.polygon(middle + (quad - middle) * (0.84, 0.74), stage.lit(pane, turned, depth))


def _wheels(stage: Stage, pose: Pose, length: float, width: float, beside: bool) -> None:
    """Draws the tyres of a car. With `beside`, draws tyres and hubs only on the side that faces the viewer."""
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for side, face in ((1, 1), (-1, 3)):
        if beside and not _face_shows(stage, pose, (length, width, 1), face):
            continue
        for end in (-0.62, 0.62):
            for radius, grey in ((0.36, 0.05), (0.19, 0.45)) if beside else ((0.36, 0.05),):
                along, up = end * length + radius * np.cos(angle), 0.36 + radius * np.sin(angle)
                world = pose.place(np.stack([along, np.full(12, side * width), up], 1))
                stage.canvas.polygon(stage.camera.project(world), stage.lit((grey,) * 3, (0, 0, -1), world[0, 2]))


def _face_shows(stage: Stage, pose: Pose, half: tuple[float, float, float], face: int) -> bool:
    return visible(stage.camera.project(pose.place(_BOX * half))[list(_FACES[face][0])])


def _lamps(stage: Stage, pose: Pose, length: float, width: float, waist: float) -> None:
    """Draws red rear lamps, white front lamps and number plates."""
    for end, face, colour in ((-1, 0, (0.75, 0.05, 0.05)), (1, 2, (0.95, 0.92, 0.8))):
        if not _face_shows(stage, pose, (length, width, waist), face):
            continue
        for left, right, low, high, tone in (
            (-0.95, -0.6, 0.6, 0.8, colour),
            (0.6, 0.95, 0.6, 0.8, colour),
            (-0.25, 0.25, 0.42, 0.56, (0.8, 0.8, 0.72)),
        ):
            corners = ((left, low), (right, low), (right, high), (left, high))
            world = pose.place(np.asarray([(end * length, width * a, waist * b) for a, b in corners]))
            lit = stage.lit(tone, (0, 0, -1), world[0, 2]) + 0.6 * stage.light.lamps * np.asarray(tone)
            stage.canvas.polygon(stage.camera.project(world), lit)
