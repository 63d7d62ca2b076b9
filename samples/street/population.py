"""Who is in the street: traffic in its lanes, parked cars, people, signs and lights."""

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.export.classes import read_classes
from samples.street.people import Cyclist, Person
from samples.street.scenery import Ground
from samples.street.signs import Sign, TrafficLight
from samples.street.things import Thing
from samples.street.vehicles import Vehicle

__all__ = ["CLASSES", "populate"]

CLASSES = read_classes(Path(__file__).parent / "classes.json")
_ID = {info.name: index for index, info in enumerate(CLASSES)}

_FARTHEST_THING = 42.0
"""Metres from the camera's start; smaller than a few pixels beyond."""


def _paint(rng: np.random.Generator) -> NDArray[np.float64]:
    """The colour of a car: often grey, sometimes not."""
    if rng.random() < 0.45:
        grey = rng.choice([28.0, 70.0, 128.0, 185.0, 232.0])
        return np.array([grey, grey, grey * 1.03])
    return _bright(rng)


def _bright(rng: np.random.Generator) -> NDArray[np.float64]:
    """A random hue of medium strength."""
    hue, value, purity = rng.uniform(0, 6), rng.uniform(110, 235), rng.uniform(0.35, 0.85)
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return np.asarray(value * (1 - purity + purity * wheel))


_BODIES: tuple[tuple[tuple[tuple[float, float], ...], float], ...] = (
    # (profile from the rear bumper over the roof to the front bumper; width), metres
    (((-2.2, 0.3), (-2.22, 0.8), (-2.1, 0.98), (-1.55, 1.02), (-0.95, 1.42),
      (0.35, 1.45), (1.05, 1.0), (2.0, 0.84), (2.2, 0.62), (2.22, 0.3)), 1.8),
    (((-1.95, 0.3), (-1.98, 0.8), (-1.94, 0.95), (-1.85, 1.02), (-1.45, 1.5),
      (0.3, 1.53), (1.0, 1.05), (1.75, 0.9), (1.95, 0.65), (1.97, 0.3)), 1.78),
    (((-2.2, 0.35), (-2.24, 0.9), (-2.22, 1.05), (-2.15, 1.12), (-1.85, 1.72),
      (0.5, 1.75), (1.2, 1.18), (2.1, 1.05), (2.3, 0.75), (2.32, 0.35)), 1.92),
    (((-2.4, 0.35), (-2.42, 0.9), (-2.42, 1.1), (-2.4, 1.2), (-2.3, 2.05),
      (1.2, 2.05), (1.85, 1.25), (2.3, 1.05), (2.45, 0.75), (2.47, 0.35)), 1.95),
)  # fmt: skip


def _car(rng: np.random.Generator, x: float, z: float, velocity: tuple[float, float], heading: float) -> Vehicle:
    points, width = _BODIES[rng.choice(len(_BODIES), p=[0.34, 0.28, 0.26, 0.12])]
    profile = np.array(points)
    rear, back, front, screen = profile[3], profile[4], profile[5], profile[6]
    low, high = max(rear[1], screen[1]) + 0.02, back[1] - 0.1
    pillar = (back[0] + front[0]) / 2
    windows = (
        np.array(
            [[rear[0] * 0.6 + back[0] * 0.4, low], [pillar - 0.05, low], [pillar - 0.05, high], [back[0] + 0.05, high]]
        ),
        np.array([[pillar + 0.05, low], [screen[0] - 0.15, low], [front[0] + 0.02, high], [pillar + 0.05, high]]),
    )
    wheels = ((profile[0, 0] * 0.62, 0.34), (profile[-1, 0] * 0.64, 0.34))
    return Vehicle(
        x,
        z,
        velocity,
        heading,
        _paint(rng),
        float(rng.uniform(0.97, 1.06)),
        profile,
        (3, 5),
        width,
        windows,
        wheels,
        None,
    )


def _bus(rng: np.random.Generator, x: float, z: float, velocity: tuple[float, float], heading: float) -> Vehicle:
    half = rng.uniform(4.2, 5.4)
    profile = np.array(
        [
            [-half, 0.35],
            [-half - 0.02, 1.2],
            [-half, 1.3],
            [-half + 0.05, 2.7],
            [-half + 0.2, 3.0],
            [half - 0.2, 3.0],
            [half - 0.03, 2.75],
            [half, 1.15],
            [half + 0.02, 0.35],
        ]
    )
    edges = np.linspace(-half + 0.3, half - 0.3, int(half * 1.3) + 1)
    windows = tuple(
        np.array([[a + 0.08, 1.35], [b - 0.08, 1.35], [b - 0.08, 2.45], [a + 0.08, 2.45]]) for a, b in pairwise(edges)
    )
    wheels = ((-half * 0.6, 0.45), (half * 0.62, 0.45))
    return Vehicle(x, z, velocity, heading, _bright(rng), 1.0, profile, (2, 6), 2.45, windows, wheels, _bright(rng))


_SKIN = np.array([[236, 196, 168], [208, 158, 122], [150, 104, 76], [102, 70, 54]], np.float64)
_HAIR = np.array([[40, 30, 26], [90, 58, 34], [186, 146, 84], [120, 116, 112]], np.float64)


def _person(rng: np.random.Generator, x: float, z: float, velocity: tuple[float, float]) -> Person:
    return Person(
        x=x,
        z=z,
        velocity=velocity,
        heading=0.0,
        color=_bright(rng) if rng.random() < 0.75 else np.full(3, rng.uniform(40, 220)),
        scale=float(rng.uniform(0.92, 1.12)) * (0.72 if rng.random() < 0.08 else 1.0),
        trousers=np.array([52.0, 62.0, 96.0]) * rng.uniform(0.6, 1.5)
        if rng.random() < 0.6
        else np.full(3, rng.uniform(35, 150)),
        skin=_SKIN[rng.integers(len(_SKIN))],
        hair=_HAIR[rng.integers(len(_HAIR))],
        phase=float(rng.uniform(0, 6.28)),
        sideways=abs(velocity[0]) > abs(velocity[1]),
        skirt=bool(rng.random() < 0.2),
    )


def _cyclist(rng: np.random.Generator, x: float, z: float, velocity: tuple[float, float]) -> Cyclist:
    return Cyclist(
        x=x,
        z=z,
        velocity=velocity,
        heading=0.0,
        color=_bright(rng),
        scale=float(rng.uniform(0.98, 1.12)),
        trousers=np.array([46.0, 52.0, 70.0]) * rng.uniform(0.6, 1.6),
        skin=_SKIN[rng.integers(len(_SKIN))],
        helmet=_bright(rng),
        frame=_bright(rng) * 0.8,
        phase=float(rng.uniform(0, 6.28)),
        sideways=abs(velocity[0]) > abs(velocity[1]),
    )


def populate(
    rng: np.random.Generator, ground: Ground, speed: float, position: tuple[float, float, float]
) -> tuple[tuple[int, Thing], ...]:
    """Traffic keeps to its lanes and spacing, so that nothing drives through anything else."""
    things: list[tuple[int, Thing]] = []
    lane = (ground.road - ground.parking) / 2
    far = _FARTHEST_THING + 4 * speed
    pace = float(rng.uniform(3, 8))
    for heading, x, velocity, start in (
        (0.0, lane, speed + rng.uniform(0, 0.6) if speed else rng.choice([0.0, pace]), rng.uniform(6, 16)),
        (np.pi, -lane, -pace * rng.choice([0.0, 1.0, 1.0]), rng.uniform(-4, 12) + pace),
    ):
        z = start
        while z < far + (8 * pace if velocity < 0 else 0):
            draw = rng.random()
            move = (0.0, float(velocity))
            if draw < 0.5:
                things.append((_ID["car"], _car(rng, x + rng.normal(0, 0.15), z, move, heading)))
                z += 7 + rng.exponential(7)
            elif draw < 0.6:
                things.append((_ID["bus"], _bus(rng, x, z + 4, move, heading)))
                z += 15 + rng.exponential(6)
            elif draw < 0.8:
                things.append((_ID["cyclist"], _cyclist(rng, x + np.sign(x) * 0.5, z, move)))
                z += 4 + rng.exponential(6)
            else:
                z += rng.uniform(4, 12)
    if ground.parking:
        for side in (-1, 1):
            z, fill = rng.uniform(4, 10), rng.uniform(0.1, 0.7)
            while z < far:
                if rng.random() < fill:
                    heading = 0.0 if side > 0 else np.pi
                    things.append(
                        (_ID["car"], _car(rng, side * (ground.road - ground.parking / 2), z, (0.0, 0.0), heading))
                    )
                z += rng.uniform(5.6, 7.5)
    for side in (-1, 1):
        for _ in range(rng.poisson(4.0)):
            x = side * (ground.road + rng.uniform(0.5, ground.walk - 0.5))
            walk = rng.choice([-1.4, -1.0, 0.0, 1.0, 1.4])
            things.append((_ID["person"], _person(rng, x, _clear(rng, x, position, 5, 34), (0.0, float(walk)))))
        for kind, mean, reach in (("sign", 1.6, 28), ("traffic light", 1.1, 30)):
            for _ in range(rng.poisson(mean)):
                x = side * (ground.road + 0.45)
                things.append((_ID[kind], _post(rng, kind, x, _clear(rng, x, position, 7, reach + 3 * speed))))
    for z in ground.crossings:
        for _ in range(rng.poisson(1.2)):
            start, direction = rng.uniform(-ground.road, ground.road), rng.choice([-1, 1])
            pace = float(direction * rng.uniform(0.8, 1.6))
            things.append((_ID["person"], _person(rng, start, z + rng.uniform(0.4, 2.2), (pace, 0.0))))
    if rng.random() < 0.45:
        direction = rng.choice([-1, 1])
        z = rng.uniform(8, 26)
        rider = _cyclist(
            rng, -direction * rng.uniform(0, ground.road), z, (float(direction * rng.uniform(0.8, 2.2)), 0.0)
        )
        things.append((_ID["cyclist"], rider))
    return tuple(things)


def _clear(rng: np.random.Generator, x: float, position: tuple[float, float, float], near: float, far: float) -> float:
    """A z to stand at, not right in front of a camera on the sidewalk."""
    return float(rng.uniform(near + (3 if abs(x - position[0]) < 1.5 else 0), far))


def _post(rng: np.random.Generator, kind: str, x: float, z: float) -> Thing:
    if kind == "traffic light":
        back = np.array([230.0, 180.0, 40.0]) if rng.random() < 0.3 else np.full(3, rng.uniform(60, 200))
        return TrafficLight(
            x,
            z,
            (0.0, 0.0),
            0.0,
            back,
            float(rng.uniform(0.9, 1.1)),
            float(rng.uniform(3, 8)),
            float(rng.uniform(0, 20)),
        )
    corners = int(rng.choice([0, 0, 3, 4, 8]))
    red, blue, white, yellow = (
        np.array(c) for c in ((200.0, 32.0, 36.0), (32.0, 84.0, 178.0), (236.0, 236.0, 232.0), (246.0, 196.0, 40.0))
    )
    rim, face = {
        0: (red, white) if rng.random() < 0.6 else (white, blue),
        3: (red, white),
        4: (white, yellow) if rng.random() < 0.5 else (white, blue),
        8: (white, red),
    }[corners]
    return Sign(x, z, (0.0, 0.0), 0.0, face, float(rng.uniform(0.95, 1.2)), corners, rim)
