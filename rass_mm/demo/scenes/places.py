"""Kinds of places, each with its terrain and objects."""

from collections.abc import Callable

import numpy as np

from rass_mm.demo.scenes.canvas import Stage
from rass_mm.demo.scenes.ground import Lake, Lane, Terrain
from rass_mm.demo.scenes.plan import Plan, along, ground_colours
from rass_mm.demo.scenes.solids import Pose


def sample_plan(stage: Stage) -> Plan:
    """Samples a kind of place and all objects in it."""
    kinds: tuple[tuple[float, Callable[[Stage, str], Plan]], ...] = (
        (0.26, _street),
        (0.12, _facades),
        (0.27, _country),
        (0.21, _shore),
        (0.14, _park),
    )
    season = str(stage.rng.choice(('summer', 'autumn', 'dry'), p=(0.6, 0.2, 0.2)))
    builder = kinds[stage.rng.choice(len(kinds), p=[weight for weight, _ in kinds])][1]
    return builder(stage, season)


def _street(stage: Stage, season: str) -> Plan:
    """Plans a road that leads away from the viewer between rows of houses."""
    rng = stage.rng
    road = Lane(rng.uniform(-3.5, 3.5), rng.normal(0, 0.08), rng.normal(0, 0.0008), rng.uniform(2.6, 5.2))
    roads = [road]
    if stage.chance(0.3):
        roads.append(Lane(rng.uniform(14, 36), rng.normal(0, 0.05), 0, rng.uniform(2.6, 4), across=True))
    walk = rng.uniform(1.6, 3.4) if stage.chance(0.88) else 0.0
    base = 'sidewalk' if walk and stage.chance(0.3) else 'grass'
    terrain = Terrain(tuple(roads), (), None, walk, base, ground_colours(stage, season, False))
    plan = Plan(stage, terrain, season)
    storeys = rng.choice((5.5, 10.0, 17.0, 30.0), p=(0.3, 0.34, 0.24, 0.12))
    for side in (-1, 1):
        if stage.chance(0.86):
            _house_row(plan, road, side, walk, storeys)
        else:
            plan.fence(along(road, side * (road.half + walk + 0.4), 3, 50, 2.6))
            for x, z in along(road, side * (road.half + walk + 4), 6, 70, rng.uniform(4, 9)):
                plan.tree(x + side * stage.uniform(0, 5), z)
    _street_furniture(plan, road, walk)
    _traffic(plan, road, rng.poisson(3.2), parked=0.5)
    _people(plan, rng.poisson(3.5), ('sidewalk', 'road') if stage.chance(0.5) else ('sidewalk',), 28)
    return plan


def _house_row(plan: Plan, road: Lane, side: int, walk: float, storeys: float) -> None:
    stage = plan.stage
    z = max(2.2, plan.stage.camera.nearest * 0.6)
    setback = stage.uniform(0, 5) if stage.chance(0.5) else 0.2
    yaw = float(np.arctan(road.slope))
    pitched = storeys < 12 and stage.chance(0.6)
    while z < 85:
        length, width = stage.uniform(6, 17), stage.uniform(8, 12)
        middle = z + length / 2
        ends = [road.offset + road.slope * t + road.bend * t * t for t in (z, middle, z + length)]
        x = side * (max(side * end for end in ends) + road.half + walk + setback + width / 2 + 0.4)
        free = all(abs(lane.lateral(x, middle)) > lane.half + walk + length / 2 for lane in plan.terrain.roads[1:])
        if free and stage.chance(0.93):
            height = storeys * stage.uniform(0.7, 1.35)
            plan.building(Pose(x, middle, yaw), (length, width, height), pitched)
        elif free:
            plan.tree(side * (abs(x) - 3), middle)
        z += length + (stage.uniform(1, 5) if stage.chance(0.35) else 0.05)
    if stage.chance(0.25):
        plan.building(Pose(stage.uniform(-5, 5), 98, 0), (12, 40, storeys * stage.uniform(0.8, 1.5)), False)


def _street_furniture(plan: Plan, road: Lane, walk: float) -> None:
    """Adds lamps, signals, posts and trees along the kerb."""
    stage = plan.stage
    inset = min(0.5, walk / 3) or 0.7
    for side in (-1, 1):
        if stage.chance(0.6):
            kind = 'mast' if stage.chance(0.2) else 'lamp'
            for x, z in along(road, side * (road.half + inset), stage.uniform(4, 12), 70, stage.uniform(9, 20)):
                plan.pole(x, z, kind)
        if stage.chance(0.45):
            tall, kind = stage.uniform(4, 8), 'round' if stage.chance(0.7) else 'poplar'
            for x, z in along(road, side * (road.half + inset + 0.5), stage.uniform(6, 12), 70, stage.uniform(6, 11)):
                plan.tree(x, z, tall * stage.uniform(0.85, 1.15), kind)
        if stage.chance(0.35):
            ((x, z),) = along(road, side * (road.half + 0.5), stage.uniform(5, 16), 1e3, 1e3)
            plan.pole(x, z, 'signal' if stage.chance(0.6) else 'post')
        if stage.chance(0.2):
            start = stage.uniform(4, 10)
            plan.fence(along(road, side * (road.half + 0.25), start, start + stage.uniform(8, 24), 2.0))


def _traffic(plan: Plan, road: Lane, count: int, parked: float) -> None:
    """Adds cars in the lanes and at the kerb."""
    stage, taken = plan.stage, []
    for _ in range(count):
        if road.across:
            t = stage.uniform(-1, 1) * stage.camera.half_view(road.offset)
        else:
            t = 1 / stage.uniform(1 / 60, 1 / max(6.5, stage.camera.nearest + 2))
        standing = stage.chance(parked)
        side = (-1 if stage.chance(0.5) else 1) * (road.half - 1.0 if standing else road.half * 0.45)
        ((x, z),) = along(road, side, t, t + 1, 5)
        if any(abs(x - ox) < 2.4 and abs(z - oz) < 6 or (road.across and abs(x - ox) < 5.5) for ox, oz in taken):
            continue
        taken.append((x, z))
        heading = np.arctan(road.slope + 2 * road.bend * t)
        plan.car(x, z, float(np.pi / 2 - heading if road.across else heading))


def _people(plan: Plan, count: int, allowed: tuple[str, ...], far: float) -> None:
    """Adds persons, some of them in pairs."""
    for _ in range(count):
        spot = plan.scatter(allowed, 4.0, far)
        if spot is None:
            continue
        plan.person(*spot)
        if plan.stage.chance(0.3):
            plan.person(spot[0] + plan.stage.uniform(0.5, 0.8), spot[1] + plan.stage.uniform(-0.3, 0.3))


def _facades(stage: Stage, season: str) -> Plan:
    """Plans a row of houses on the far side of a road."""
    rng = stage.rng
    base_depth = max(stage.camera.nearest * 1.5, 7.0)
    road = Lane(base_depth + rng.uniform(0, 5), rng.normal(0, 0.06), 0, rng.uniform(2.6, 4), across=True)
    walk = rng.uniform(1.6, 3)
    terrain = Terrain((road,), (), None, walk, 'grass', ground_colours(stage, season, False))
    plan = Plan(stage, terrain, season)
    front = road.offset + road.half + walk + (stage.uniform(0.3, 6) if stage.chance(0.6) else 0.3)
    storeys, pitched = rng.choice((5.0, 9.0, 16.0), p=(0.4, 0.35, 0.25)), stage.chance(0.4)
    x, end = -stage.camera.half_view(front) - 6, stage.camera.half_view(front) + 4
    while x < end:
        length, depth = stage.uniform(6, 16), stage.uniform(8, 11)
        middle = x + length / 2
        z = front + road.slope * middle + depth / 2
        if stage.chance(0.85):
            pose = Pose(middle, z, float(np.pi / 2 - np.arctan(road.slope)))
            plan.building(pose, (length, depth, storeys * stage.uniform(0.75, 1.3)), pitched)
        else:
            plan.tree(middle, z)
        x += length + (stage.uniform(0.5, 6) if stage.chance(0.4) else 0.05)
    reach = stage.camera.half_view(front)
    if stage.chance(0.35):
        plan.fence(along(road, road.half + walk + 0.2, -reach, reach, 2.4))
    for t in np.arange(-reach, reach, stage.uniform(5, 12)):
        ((px, pz),) = along(road, road.half + 0.5, t, t + 1, 5)
        plan.tree(px, pz, stage.uniform(3.5, 7)) if stage.chance(0.3) else plan.pole(px, pz, 'lamp')
    _traffic(plan, road, rng.poisson(2.5), parked=0.6)
    _people(plan, rng.poisson(3), ('sidewalk',), front)
    return plan


def _country(stage: Stage, season: str) -> Plan:
    """Plans fields, optionally with a road, a farm, fences and masts."""
    rng = stage.rng
    roads: tuple[Lane, ...] = ()
    if stage.chance(0.75):
        if stage.chance(0.75):
            road = Lane(rng.uniform(-5, 5), rng.normal(0, 0.2), rng.normal(0, 0.002), rng.uniform(1.6, 3.8))
        else:
            road = Lane(
                stage.camera.nearest * 1.3 + rng.uniform(3, 14),
                rng.normal(0, 0.1),
                0,
                rng.uniform(1.6, 3.5),
                across=True,
            )
        roads = (road,)
    lake = _sample_lake(stage) if stage.chance(0.2) else None
    terrain = Terrain(roads, (), lake, 0.0, 'grass', ground_colours(stage, season, stage.chance(0.35)))
    plan = Plan(stage, terrain, season)
    for _ in range(rng.choice((0, 1, 2, 3), p=(0.4, 0.3, 0.2, 0.1))):
        spot = plan.scatter(('grass',), 22, 60)
        if spot and all(abs(lane.lateral(*spot)) > lane.half + 9 for lane in roads):
            size = (stage.uniform(8, 15), stage.uniform(7, 9), stage.uniform(3, 5.5))
            plan.building(Pose(*spot, stage.uniform(0, np.pi)), size, True)
    for road in roads:
        _roadside(plan, road)
        _traffic(plan, road, rng.poisson(1.3), parked=0.1)
    if stage.chance(0.3):
        _field_fence(plan)
    for _ in range(rng.poisson(5)):
        spot = plan.scatter(('grass',), 9, 80)
        if spot:
            plan.tree(*spot)
    _people(plan, rng.poisson(0.6), ('grass', 'road'), 25)
    return plan


def _roadside(plan: Plan, road: Lane) -> None:
    stage = plan.stage
    reach = stage.camera.half_view(road.offset) if road.across else 0
    near, far = (-reach, reach) if road.across else (3.0, 60.0)
    for side in (-1, 1):
        if stage.chance(0.4):
            plan.fence(along(road, side * (road.half + stage.uniform(0.8, 3)), near, far, 2.6))
    if stage.chance(0.45):
        for x, z in along(
            road,
            stage.rng.choice((-1, 1)) * (road.half + 2.2),
            near + stage.uniform(2, 9),
            far + 20,
            stage.uniform(11, 20),
        ):
            plan.pole(x, z, 'mast')
    if stage.chance(0.25):
        kind = 'poplar' if stage.chance(0.5) else 'round'
        for x, z in along(road, stage.rng.choice((-1, 1)) * (road.half + 3), near + 5, far + 20, stage.uniform(6, 10)):
            plan.tree(x, z, None, kind)


def _field_fence(plan: Plan) -> None:
    """Adds a fence across the view."""
    z = max(plan.stage.camera.nearest * 1.2, 5) + plan.stage.uniform(0, 14)
    reach, slope = plan.stage.camera.half_view(z) + 3, plan.stage.uniform(-0.3, 0.3)
    plan.fence([(float(x), float(z + slope * x)) for x in np.arange(-reach, reach, 2.5)])


def _sample_lake(stage: Stage) -> Lake:
    rng, near = stage.rng, stage.camera.nearest
    kind = str(rng.choice(('behind', 'beside', 'oval'), p=(0.4, 0.3, 0.3)))
    side = rng.choice((-1, 1))
    if kind == 'behind':
        return Lake(kind, (0, near * 1.3 + rng.uniform(1.5, 14)), (0, rng.uniform(0.5, 4)), rng.uniform(0, 6))
    if kind == 'beside':
        return Lake(kind, (side * rng.uniform(0.5, 5), 0), (rng.uniform(0.3, 1.5), 0), rng.uniform(0, 6))
    z = near + rng.uniform(8, 18)
    return Lake(kind, (side * rng.uniform(0, 6), z), (rng.uniform(4, 11), z * rng.uniform(0.2, 0.5)), rng.uniform(0, 6))


def _shore(stage: Stage, season: str) -> Plan:
    """Plans a lake or river beside a path, a promenade or a meadow."""
    rng = stage.rng
    lake = _sample_lake(stage)
    promenade = stage.chance(0.4)
    paths = ()
    if not promenade and stage.chance(0.5):
        paths = (Lane(-np.sign(lake.where[0] or 1) * rng.uniform(1, 4), rng.normal(0, 0.15), 0, rng.uniform(0.7, 1.4)),)
    terrain = Terrain((), paths, lake, 0.0, 'sidewalk' if promenade else 'grass', ground_colours(stage, season, False))
    plan = Plan(stage, terrain, season)
    if promenade and lake.kind == 'behind':
        reach = stage.camera.half_view(lake.where[1]) + 3
        plan.fence([(float(x), lake.where[1] - lake.size[1] - 0.4) for x in np.arange(-reach, reach, 2.0)])
    for _ in range(rng.poisson(4)):
        spot = plan.scatter(('grass', 'sidewalk'), 9, 55)
        if spot:
            plan.tree(*spot)
    for _ in range(rng.poisson(1.2)):
        spot = plan.scatter(('sidewalk', 'grass'), 5, 30)
        if spot:
            plan.pole(*spot, 'lamp' if stage.chance(0.6) else 'post')
    _people(plan, rng.poisson(2.2), ('sidewalk', 'grass'), 25)
    return plan


def _park(stage: Stage, season: str) -> Plan:
    """Plans lawns, paths, trees and pedestrians, optionally with houses or a pond."""
    rng = stage.rng
    paths = tuple(
        Lane(rng.uniform(-5, 5), rng.normal(0, 0.35), rng.normal(0, 0.006), rng.uniform(0.8, 1.8))
        for _ in range(rng.integers(1, 3))
    )
    lake = Lake(
        'oval', (rng.uniform(-8, 8), rng.uniform(14, 26)), (rng.uniform(4, 9), rng.uniform(3, 7)), rng.uniform(0, 6)
    )
    terrain = Terrain(
        (), paths, lake if stage.chance(0.35) else None, 0.0, 'grass', ground_colours(stage, season, False)
    )
    plan = Plan(stage, terrain, season)
    if stage.chance(0.4):
        z, x = stage.uniform(45, 75), -70.0
        while x < 70:
            length = stage.uniform(10, 22)
            if stage.chance(0.8):
                plan.building(
                    Pose(x + length / 2, z + 6, np.pi / 2), (length, 12, stage.uniform(7, 26)), stage.chance(0.2)
                )
            x += length + stage.uniform(0, 6)
    if stage.chance(0.35):
        _field_fence(plan)
    for _ in range(rng.poisson(9)):
        spot = plan.scatter(('grass',), 9, 70)
        if spot:
            plan.tree(*spot)
    for x, z in along(paths[0], paths[0].half + 0.5, stage.uniform(5, 12), 50, stage.uniform(8, 14)):
        if stage.chance(0.5):
            plan.pole(x, z, 'lamp')
    _people(plan, rng.poisson(2.6), ('sidewalk', 'grass'), 25)
    return plan
