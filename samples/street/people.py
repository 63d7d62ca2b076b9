"""People on foot and on bicycles, moving their limbs."""

from dataclasses import dataclass

import numpy as np

from samples.street.canvas import Canvas, Points
from samples.street.things import CIRCLE, Thing

__all__ = ["Cyclist", "Person"]


@dataclass(frozen=True)
class Person(Thing):
    """Walks (or stands) turned to the camera's picture plane."""

    trousers: Points
    skin: Points
    hair: Points
    phase: float
    sideways: bool
    skirt: bool

    def paint(self, canvas: Canvas, time: float) -> None:
        speed = float(np.hypot(*self.velocity))
        swing = np.sin(self.phase + time * speed * 4.2) * min(1.0, speed)
        stride = 0.26 * swing if self.sideways else 0.07 * swing
        lift = 0.05 * abs(swing)
        shoulder = 0.19 if self.sideways else 0.25
        shoes = np.full(3, 38.0)
        shapes = []
        for leg in (-1, 1):
            foot = leg * (stride if self.sideways else 0.1) + (0 if self.sideways else stride * 0.3)
            raised = lift if leg * swing > 0 else 0.0
            hip = leg * (0.04 if self.sideways else 0.1)
            tone = self.trousers * (1.0 if leg > 0 else 0.82)
            shapes.append((_limb((hip, 0.88), (foot, raised + 0.05), 0.19, 0.13), tone))
            toe = 0.1 if self.sideways else 0.0
            shapes.append((_limb((foot - 0.06, raised + 0.04), (foot + 0.06 + toe, raised + 0.04), 0.09, 0.09), shoes))
        back = _limb((-0.02, 1.36), (-stride * 0.9 - (0 if self.sideways else shoulder), 0.86), 0.11, 0.09)
        shapes.append((back, self.color * 0.78))
        torso = np.array(
            [
                [-shoulder * 0.8, 0.82],
                [shoulder * 0.8, 0.82],
                [shoulder, 1.36],
                [0.1, 1.47],
                [-0.1, 1.47],
                [-shoulder, 1.36],
            ]
        )
        shapes.append((torso, self.color))
        if self.skirt:
            shapes.append((np.array([[-0.3, 0.5], [0.3, 0.5], [0.17, 0.95], [-0.17, 0.95]]), self.color * 0.9))
        front = (0.0 if self.sideways else shoulder, 1.36), (stride * 0.9 + (0 if self.sideways else shoulder), 0.86)
        shapes.append((_limb(*front, 0.11, 0.09), self.color * 0.9))
        shapes.append((np.array([0.0, 1.61]) + CIRCLE * (0.135, 0.165), self.hair))
        shapes.append((np.array([0.03 if self.sideways else 0.0, 1.58]) + CIRCLE * (0.105, 0.125), self.skin))
        self.billboard(canvas, shapes, time, flip=self.velocity[0] < 0)


@dataclass(frozen=True)
class Cyclist(Thing):
    """A bicycle and its rider, one segment."""

    trousers: Points
    skin: Points
    helmet: Points
    frame: Points
    phase: float
    sideways: bool

    def paint(self, canvas: Canvas, time: float) -> None:
        speed = float(np.hypot(*self.velocity))
        turn = self.phase + time * speed * 2.2
        tyre, spokes = np.full(3, 30.0), np.full(3, 118.0)
        shapes = []
        if self.sideways:
            pedals = np.array([0.0, 0.3]) + 0.16 * np.array(
                [[np.cos(turn), np.sin(turn)], [-np.cos(turn), -np.sin(turn)]]
            )
            shapes.append((_limb((-0.12, 0.95), tuple(pedals[1]), 0.18, 0.11), self.trousers * 0.75))
            for x in (-0.52, 0.52):
                shapes.append((np.array([x, 0.34]) + CIRCLE * 0.34, tyre))
                shapes.append((np.array([x, 0.34]) + CIRCLE * 0.27, spokes))
            for a, b in (
                ((-0.52, 0.34), (0, 0.3)),
                ((0, 0.3), (0.4, 0.8)),
                ((-0.15, 0.85), (0.4, 0.8)),
                ((-0.15, 0.85), (0, 0.3)),
                ((0.4, 0.95), (0.52, 0.34)),
                ((-0.52, 0.34), (-0.15, 0.85)),
            ):
                shapes.append((_limb(a, b, 0.06, 0.06), self.frame))
            shapes.append((_limb((-0.12, 0.97), tuple(pedals[0]), 0.19, 0.12), self.trousers))
            shapes.append((_limb((-0.12, 0.9), (0.18, 1.42), 0.3, 0.34), self.color))
            shapes.append((_limb((0.18, 1.38), (0.42, 0.98), 0.11, 0.09), self.color * 0.85))
            head = 0.28
        else:
            shapes.append((np.array([0.0, 0.34]) + CIRCLE * (0.07, 0.34), tyre))
            for leg in (-1, 1):
                knee = 0.3 + 0.12 * leg * np.sin(turn)
                shapes.append(
                    (_limb((leg * 0.1, 0.95), (leg * 0.13, knee), 0.19, 0.13), self.trousers * (1 if leg > 0 else 0.85))
                )
            shapes.append((_limb((-0.3, 1.0), (0.3, 1.0), 0.05, 0.05), self.frame))
            for arm in (-1, 1):
                shapes.append((_limb((arm * 0.2, 1.4), (arm * 0.29, 1.0), 0.11, 0.09), self.color * 0.85))
            shapes.append((np.array([[-0.18, 0.88], [0.18, 0.88], [0.25, 1.4], [0, 1.52], [-0.25, 1.4]]), self.color))
            head = 0.0
        shapes.append((np.array([head, 1.62]) + CIRCLE * (0.115, 0.145), self.skin))
        shapes.append((np.array([head, 1.68]) + CIRCLE[:11] * (0.145, 0.14), self.helmet))
        self.billboard(canvas, shapes, time, flip=self.velocity[0] < 0)


def _limb(a: tuple[float, float], b: tuple[float, float], width_a: float, width_b: float) -> Points:
    """A tapered bar from a to b."""
    start, end = np.array(a), np.array(b)
    along = end - start
    along = along / (np.hypot(*along) + 1e-9)
    side = np.array([-along[1], along[0]])
    return np.array(
        [start + side * width_a / 2, end + side * width_b / 2, end - side * width_b / 2, start - side * width_a / 2]
    )
