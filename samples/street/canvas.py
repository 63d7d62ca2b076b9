"""A pinhole camera over a flat world, the light, and the two pictures that are painted at once: colours and ids."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Camera", "Canvas", "Color", "Light", "Points"]

Points = NDArray[np.float64]
"""(N, 3) metres: x right, y up, z along the street; or (N, 2) pixels."""
Color = tuple[float, float, float] | NDArray[np.float64]
"""RGB, 0..255."""

_SUBPIXEL_BITS = 4
_FLIP = np.array([1.0, -1.0])
_NEAR = 0.4
"""Metres; what lies closer to the camera plane is cut off."""


@dataclass(frozen=True)
class Camera:
    """Stands at ``position``, looks along +z turned by ``yaw`` (to the right) and ``pitch`` (up), in radians."""

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    focal: float
    """In image widths."""
    size: tuple[int, int]
    """(height, width) of the picture in pixels."""

    @property
    def focal_pixels(self) -> float:
        return self.focal * self.size[1]

    @property
    def horizon(self) -> float:
        """Image row of the horizon, in pixels."""
        return self.size[0] / 2 + float(np.tan(self.pitch)) * self.focal_pixels

    @functools.cached_property
    def axes(self) -> Points:
        """(3, 3): right, up, forward as columns."""
        cy, sy, cp, sp = np.cos(self.yaw), np.sin(self.yaw), np.cos(self.pitch), np.sin(self.pitch)
        return np.array([[cy, -sy * sp, sy * cp], [0.0, cp, sp], [-sy, -cy * sp, cy * cp]])

    def view(self, points: Points) -> Points:
        """World points (N, 3) in camera axes: right, up, forward."""
        return np.asarray((points - self.position) @ self.axes)

    def screen(self, view: Points) -> Points:
        """Camera-axes points in front of the near plane -> pixels (N, 2)."""
        scale = self.focal_pixels / view[:, 2:]
        return np.asarray(view[:, :2] * (scale * _FLIP) + (self.size[1] / 2, self.size[0] / 2))

    def ground(self, rows: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """World x and z (rows, width) where the pixels of rows below the horizon hit the ground."""
        height, width = self.size
        right = (np.arange(width) + 0.5 - width / 2)[None] / self.focal_pixels
        up = (height / 2 - rows)[:, None] / self.focal_pixels
        cp, sp = np.cos(self.pitch), np.sin(self.pitch)
        distance = -self.position[1] / (up * cp + sp)
        ahead, side = (cp - up * sp) * distance, right * distance
        cy, sy = np.cos(self.yaw), np.sin(self.yaw)
        return self.position[0] + side * cy + ahead * sy, self.position[2] - side * sy + ahead * cy


@dataclass(frozen=True)
class Light:
    """Time of day and weather. Colours of light are factors, sky and haze are RGB 0..255."""

    sun: NDArray[np.float64]
    ambient: NDArray[np.float64]
    direction: NDArray[np.float64]
    """Unit vector towards the sun."""
    sky_top: NDArray[np.float64]
    sky_low: NDArray[np.float64]
    haze: float
    """Metres over which a colour fades by 1/e into the horizon."""
    lamps: float
    """0 by day, 1 when all lamps are lit."""

    def shade(
        self, color: Color, normal: Sequence[float] | NDArray[np.float64], distance: float
    ) -> NDArray[np.float64]:
        """The colour of a surface seen from ``distance`` metres."""
        facing = max(0.0, float(np.dot(np.asarray(normal), self.direction)))
        lit = np.asarray(color) * (self.ambient + self.sun * facing)
        return self.fade(lit, distance)

    def fade(self, color: Color, distance: float) -> NDArray[np.float64]:
        """``color`` as light through ``distance`` metres of haze."""
        share = np.exp(-max(distance, 0.0) / self.haze)
        return np.asarray(np.asarray(color) * share + self.sky_low * (1 - share))

    def shadow_of(self, height: float) -> tuple[float, float]:
        """Where (x, z) the shadow of a point ``height`` metres up falls, relative to its foot."""
        x, y, z = self.direction
        return -x / max(y, 0.2) * height, -z / max(y, 0.2) * height


@dataclass
class Canvas:
    """Paints far to near. Every shape goes to ``image`` antialiased and to ``ids`` with hard edges."""

    camera: Camera
    light: Light
    image: NDArray[np.uint8] = field(init=False)
    """(H, W, 3) RGB."""
    ids: NDArray[np.int32] = field(init=False)
    """(H, W)."""
    segment: int = 0
    """Id of what is being painted."""

    def __post_init__(self) -> None:
        self.image = np.zeros((*self.camera.size, 3), np.uint8)
        self.ids = np.zeros(self.camera.size, np.int32)

    def polygons(self, shapes: Sequence[Points], color: Color) -> None:
        """Fill polygons (N, 2) in pixels that do not overlap one another."""
        if not shapes:
            return
        fixed = [np.round(s * (1 << _SUBPIXEL_BITS) - (1 << (_SUBPIXEL_BITS - 1))).astype(np.int32) for s in shapes]
        cv2.fillPoly(self.image, fixed, _tuple(color), cv2.LINE_AA, _SUBPIXEL_BITS)
        cv2.fillPoly(self.ids, fixed, (self.segment,), cv2.LINE_8, _SUBPIXEL_BITS)

    def face(self, points: Points, color: Color) -> None:
        """Fill a flat polygon (N, 3) in the world."""
        shape = self.outline(points)
        if shape is not None:
            self.polygons([shape], color)

    def faces(self, quads: NDArray[np.float64], color: Color) -> None:
        """Fill many small polygons (N, M, 3) in the world, leaving out those that cross the near plane."""
        if not len(quads):
            return
        view = self.camera.view(quads.reshape(-1, 3))
        keep = (view[:, 2] > _NEAR).reshape(quads.shape[:2]).all(axis=1)
        view = view.reshape(*quads.shape)[keep]
        if len(view):
            self.polygons(list(self.camera.screen(view.reshape(-1, 3)).reshape(-1, quads.shape[1], 2)), color)

    def discs(self, centres: Points, radii: NDArray[np.float64], colors: NDArray[np.float64]) -> None:
        """Paint balls: centres (N, 3) and radii (N,) in metres, RGB (N, 3), in the order given."""
        view = self.camera.view(centres)
        keep = view[:, 2] > _NEAR
        view, scale = view[keep], 1 << _SUBPIXEL_BITS
        where = np.round(self.camera.screen(view) * scale - scale / 2).astype(int).tolist()
        sizes = np.round(radii[keep] * (self.camera.focal_pixels * scale) / view[:, 2]).astype(int).tolist()
        for centre, radius, color in zip(where, sizes, np.clip(colors[keep], 0, 255).tolist(), strict=True):
            cv2.circle(self.image, centre, radius, color, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
            cv2.circle(self.ids, centre, radius, (self.segment,), -1, cv2.LINE_8, _SUBPIXEL_BITS)

    def outline(self, points: Points) -> Points | None:
        """A flat polygon (N, 3) in the world -> pixels (M, 2), cut at the near plane; None if all is behind it."""
        view = self.camera.view(points)
        behind = view[:, 2] < _NEAR
        if behind.all():
            return None
        if behind.any():
            view = _clip_near(view)
        return self.camera.screen(view)

    def depth(self, points: Points) -> float:
        """Distance in metres along the view axis of the nearest of the points."""
        return float(self.camera.view(points)[:, 2].min())


def _clip_near(view: Points) -> Points:
    """Sutherland-Hodgman against the one plane z = _NEAR."""
    kept = []
    for a, b in zip(view, np.roll(view, -1, axis=0), strict=True):
        if a[2] >= _NEAR:
            kept.append(a)
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            kept.append(a + (b - a) * (_NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept)


def _tuple(color: Color) -> tuple[float, float, float]:
    r, g, b = np.clip(color, 0.0, 255.0).tolist()
    return r, g, b
