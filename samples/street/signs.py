"""Traffic signs and traffic lights."""

from dataclasses import dataclass

import numpy as np

from samples.street.canvas import Canvas, Points
from samples.street.things import CIRCLE, Thing

__all__ = ["Sign", "TrafficLight"]


@dataclass(frozen=True)
class Sign(Thing):
    """A traffic sign on its pole: ``corners`` 3 triangle, 4 square, 8 stop, 0 round."""

    corners: int
    rim: Points

    @property
    def height(self) -> float:
        return 2.9

    def paint(self, canvas: Canvas, time: float) -> None:
        if self.corners:
            turn = {3: np.pi / 2, 4: np.pi / 4, 8: np.pi / 8}[self.corners]
            angle = np.arange(self.corners) * 2 * np.pi / self.corners + turn
            board = np.stack([np.cos(angle), np.sin(angle)], 1) * (1.25 if self.corners < 8 else 1.05)
        else:
            board = CIRCLE
        centre = np.array([0.0, 2.5])
        shapes = [
            (np.array([[-0.06, 0], [0.06, 0], [0.06, 2.5], [-0.06, 2.5]]), np.full(3, 128.0)),
            (centre + board * 0.5, self.rim),
            (centre + board * 0.37, self.color),
        ]
        mark = self.rim if self.color.mean() > 140 else np.full(3, 235.0)
        shapes.append((centre + np.array([[-0.22, -0.06], [0.22, -0.06], [0.22, 0.06], [-0.22, 0.06]]), mark))
        self.billboard(canvas, shapes, time)


@dataclass(frozen=True)
class TrafficLight(Thing):
    """A pole and a head with three lamps; ``period`` seconds a colour."""

    period: float
    phase: float

    @property
    def height(self) -> float:
        return 3.6

    def paint(self, canvas: Canvas, time: float) -> None:
        pole = np.array([[-0.08, 0], [0.08, 0], [0.08, 2.5], [-0.08, 2.5]])
        back = np.array([[-0.36, 2.25], [0.36, 2.25], [0.36, 3.75], [-0.36, 3.75]])
        case = np.array([[-0.27, 2.34], [0.27, 2.34], [0.27, 3.66], [-0.27, 3.66]])
        self.billboard(canvas, [(pole, np.full(3, 92.0)), (back, self.color), (case, np.full(3, 30.0))], time)
        on = int((time + self.phase) / self.period) % 3
        lamps = (np.array([235.0, 40.0, 35.0]), np.array([250.0, 180.0, 40.0]), np.array([50.0, 220.0, 110.0]))
        yaw = canvas.camera.yaw
        right, foot = np.array([np.cos(yaw), 0, -np.sin(yaw)]), self.position(time)
        for index, color in enumerate(lamps):
            shape = np.array([0.0, 3.42 - index * 0.42]) + CIRCLE * 0.16
            points = foot + (shape[:, :1] * right + shape[:, 1:] * np.array([0, 1.0, 0])) * self.scale
            canvas.face(points, color if index == on else canvas.light.shade(color * 0.22, (0, 0, -1), 0))
