"""What lines the street: rows of buildings and trees."""

import numpy as np

from samples.street.buildings import Building
from samples.street.scenery import Ground, Tree

__all__ = ["line_with_buildings", "line_with_trees"]

_WALLS = np.array(
    [[196, 160, 122], [214, 196, 164], [166, 96, 78], [186, 184, 180], [150, 118, 96], [222, 206, 190],
     [132, 140, 150], [206, 178, 96], [172, 190, 186], [188, 124, 104], [226, 220, 206], [118, 96, 88],
     [150, 168, 190], [212, 158, 140]],
    np.float64,
)  # fmt: skip
_AWNINGS = np.array([[178, 48, 44], [36, 96, 70], [40, 76, 138], [206, 140, 40], [110, 40, 90]], np.float64)


def line_with_buildings(rng: np.random.Generator, ground: Ground) -> tuple[Building, ...]:
    line = ground.road + ground.walk
    rows = []
    tall = rng.uniform(9, 20)

    def build(side: int, x: float, z: float, length: float) -> Building:
        return Building(
            side=side,
            x=x,
            z=z,
            length=length,
            height=float(np.clip(rng.normal(tall, 4), 6, 30)),
            depth=float(rng.uniform(9, 13)),
            color=np.clip(_WALLS[rng.integers(len(_WALLS))] * rng.uniform(0.85, 1.1) + rng.normal(0, 6, 3), 30, 245),
            trim=rng.uniform(0.75, 1.0) * np.array([236.0, 230.0, 218.0])
            if rng.random() < 0.7
            else np.full(3, rng.uniform(60, 110)),
            floor=float(rng.uniform(2.9, 3.6)),
            bay=float(rng.uniform(1.9, 3.2)),
            window=(float(rng.uniform(0.4, 0.68)), float(rng.uniform(0.42, 0.62))),
            lit=rng.random(61),
            shop=_AWNINGS[rng.integers(len(_AWNINGS))] if rng.random() < 0.45 else None,
            roof=float(rng.uniform(2, 4)) if rng.random() < 0.4 else 0.0,
        )

    for side in (-1, 1):
        gap = rng.uniform(0.05, 0.35)
        z = -14 + rng.uniform(-6, 0)
        while z < ground.end - 16:
            length = float(rng.uniform(8, 17))
            if rng.random() > gap:
                rows.append(build(side, side * (line + rng.choice([0.0, 0.0, 0.0, 2.5])), float(z), length))
            z += length + rng.choice([0.0, 0.0, 1.5])
    rows.sort(key=lambda b: -b.z)
    across = []
    x = -52.0 + rng.uniform(-8, 0)
    open_end = rng.random() < 0.3
    while x < 52:
        length = float(rng.uniform(9, 18))
        if not (open_end and abs(x + length / 2) < 14) and rng.random() > 0.1:
            across.append(build(0, x, ground.end + 3, length))
        x += length
    return tuple(across + rows)


_LEAVES = np.array(
    [[86, 132, 54], [66, 116, 60], [112, 142, 52], [150, 138, 50], [178, 112, 44], [74, 124, 82]], np.float64
)


def line_with_trees(rng: np.random.Generator, ground: Ground) -> tuple[Tree, ...]:
    kind = rng.integers(0, len(_LEAVES))
    line = ground.road + ground.walk
    trees = []

    def grow(x: float, z: float, bush: bool) -> Tree:
        radius = rng.uniform(0.6, 1.1) if bush else rng.uniform(1.3, 2.3)
        trunk = 0.0 if bush else float(rng.uniform(1.9, 3.0))
        count = 22 if bush else 80
        spread = rng.normal(0, 1, (count, 3))
        spread *= (rng.random(count) ** 0.33 / np.linalg.norm(spread, axis=1))[:, None] * radius
        spread[:, 1] = spread[:, 1] * rng.uniform(0.75, 1.15) + (radius * 0.5 if bush else trunk + radius * 0.9)
        size = np.geomspace(0.62, 0.11, count) * radius * rng.uniform(0.8, 1.1, count)
        tones = np.linspace(0.66, 1.1, count) + rng.normal(0, 0.05, count)
        shade = _LEAVES[kind if rng.random() < 0.75 else rng.integers(len(_LEAVES))]
        return Tree(x, z, trunk, spread, size, tones, np.clip(shade + rng.normal(0, 7, 3), 15, 230))

    for side in (-1, 1):
        if rng.random() < 0.75:
            step = rng.uniform(6, 13)
            for z in np.arange(rng.uniform(3, 12), ground.end - 10, step):
                if rng.random() < 0.8:
                    trees.append(grow(side * (ground.road + 0.8), float(z + rng.normal(0, 0.5)), False))
        if rng.random() < 0.4:
            start = rng.uniform(4, 30)
            for z in np.arange(start, start + rng.uniform(4, 12), 0.9):
                trees.append(grow(side * (line - 0.5), float(z), True))
    for _ in range(rng.integers(2, 9)):
        trees.append(grow(float(rng.uniform(-26, 26)), float(ground.end + 1.5), rng.random() < 0.3))
    return tuple(trees)
