"""What all things of the street share: a place, a way, and how their drawing is put into the world."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samples.street.canvas import Canvas, Points

__all__ = ["CIRCLE", "Thing"]

_ANGLES = np.linspace(0, 2 * np.pi, 20, endpoint=False)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
"""(20, 2), radius 1."""


@dataclass(frozen=True)
class Thing(ABC):
    """Stands at (x, z) at time 0 and moves by ``velocity`` metres per second; looks along ``heading`` (0: +z)."""

    x: float
    z: float
    velocity: tuple[float, float]
    heading: float
    color: Points
    scale: float

    def position(self, time: float) -> Points:
        return np.array([self.x + self.velocity[0] * time, 0.0, self.z + self.velocity[1] * time])

    def place(self, local: Points, time: float) -> Points:
        """(..., 3) along, up, across in metres of the thing -> world."""
        s, c = np.sin(self.heading), np.cos(self.heading)
        local = local * self.scale
        x = local[..., 0] * s + local[..., 2] * c
        z = local[..., 0] * c - local[..., 2] * s
        return np.stack([x, local[..., 1], z], axis=-1) + self.position(time)

    def footprint(self, time: float) -> Points:
        """Corners (4, 3) of what stands on the ground."""
        return self.place(np.array([[-0.25, 0, -0.25], [0.25, 0, -0.25], [0.25, 0, 0.25], [-0.25, 0, 0.25]]), time)

    @property
    def height(self) -> float:
        """Metres, as far as shadows care."""
        return 1.7 * self.scale

    @abstractmethod
    def paint(self, canvas: Canvas, time: float) -> None:
        """Draw it as it is at ``time`` seconds."""

    def billboard(
        self, canvas: Canvas, shapes: list[tuple[Points, NDArray[np.float64]]], time: float, flip: bool = False
    ) -> None:
        """Paint flat shapes (N, 2) in metres (right, up), turned towards the camera."""
        yaw = canvas.camera.yaw
        right = np.array([np.cos(yaw), 0, -np.sin(yaw)]) * (-self.scale if flip else self.scale)
        up = np.array([0, self.scale, 0])
        foot = self.position(time)
        distance = canvas.depth(foot[None])
        light = canvas.light
        lit = light.ambient + light.sun * (0.35 + 0.4 * max(0.0, -light.direction[2]))
        for shape, color in shapes:
            canvas.face(foot + shape[:, :1] * right + shape[:, 1:] * up, light.fade(color * lit, distance))
