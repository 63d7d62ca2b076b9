"""Houses with windows, shops and roofs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samples.street.canvas import Canvas, Points

__all__ = ["Building"]


@dataclass(frozen=True)
class Building:
    """A box whose long facade runs along the street (``side`` -1 left, 1 right) or closes it (``side`` 0)."""

    side: int
    x: float
    """Of the facade (sides) or the left edge (end)."""
    z: float
    length: float
    height: float
    depth: float
    color: Points
    trim: Points
    floor: float
    """Height of a storey in metres."""
    bay: float
    """Width of a window axis in metres."""
    window: tuple[float, float]
    """Share of bay and floor that glass takes."""
    lit: NDArray[np.float64]
    """Random numbers that decide which windows are lit."""
    shop: Points | None
    """Colour of the awnings of the ground floor; None: none."""
    roof: float
    """Height of a pitched roof, 0: flat."""

    def paint(self, canvas: Canvas) -> None:
        camera = canvas.camera
        if self.z + self.length < camera.position[2] + 0.5 and self.side:
            return
        if self.side:
            x0, x1 = self.x, self.x + self.side * self.depth
            front = self._wall((x0, self.z), (x1, self.z))
            facade = self._wall((x0, self.z), (x0, self.z + self.length))
            self._plain(canvas, front, (0.0, 0.0, -1.0))
            self._facade(canvas, (x0, self.z), (x0, self.z + self.length), (-float(self.side), 0.0, 0.0))
            if self.z > camera.position[2] + 1:
                self._windows(canvas, (x0, self.z), (x1, self.z), (0.0, 0.0, -1.0), 12.0)
            if self.roof:
                ridge = np.array([self.side * self.depth * 0.5, self.roof, 0])
                color = canvas.light.shade(
                    self.trim * np.array([0.75, 0.55, 0.5]), (-self.side * 0.7, 0.7, 0), self._distance(canvas)
                )
                canvas.face(np.array([facade[3], facade[2], facade[2] + ridge, facade[3] + ridge]), color)
                canvas.face(
                    np.array([front[3], front[2], front[3] + ridge]),
                    canvas.light.shade(self.color, (0, 0, -1), self._distance(canvas)),
                )
        else:
            self._facade(canvas, (self.x, self.z), (self.x + self.length, self.z), (0.0, 0.0, -1.0))

    def footprint(self) -> Points:
        """Corners (4, 3) on the ground."""
        if self.side:
            x0, x1, z0, z1 = self.x, self.x + self.side * self.depth, self.z, self.z + self.length
        else:
            x0, x1, z0, z1 = self.x, self.x + self.length, self.z, self.z + self.depth
        return np.array([[x0, 0, z0], [x1, 0, z0], [x1, 0, z1], [x0, 0, z1]], np.float64)

    def _distance(self, canvas: Canvas) -> float:
        return max(0.0, self.z - canvas.camera.position[2] + self.length * 0.3)

    def _wall(
        self, a: tuple[float, float], b: tuple[float, float], low: float = 0.0, high: float | None = None
    ) -> Points:
        top = self.height if high is None else high
        return np.array([[a[0], low, a[1]], [b[0], low, b[1]], [b[0], top, b[1]], [a[0], top, a[1]]])

    def _plain(self, canvas: Canvas, wall: Points, normal: tuple[float, float, float]) -> None:
        canvas.face(wall, canvas.light.shade(self.color, normal, self._distance(canvas)))

    def _facade(
        self, canvas: Canvas, a: tuple[float, float], b: tuple[float, float], normal: tuple[float, float, float]
    ) -> None:
        distance, light = self._distance(canvas), canvas.light
        self._plain(canvas, self._wall(a, b), normal)
        trim = light.shade(self.trim, normal, distance)
        canvas.face(self._wall(a, b, self.height - 0.5), trim)
        canvas.face(self._wall(a, b, self.floor - 0.15, self.floor + 0.15), trim)
        self._windows(canvas, a, b, normal, 40.0)
        glass = np.array([255.0, 205.0, 130.0]) * light.lamps + np.array([58.0, 66.0, 74.0]) * (light.ambient + 0.2) * (
            1 - light.lamps
        )
        if self.shop is None:
            return
        quads = self._grid(a, b, np.array([0.35]), np.array([self.floor - 0.75]), 0.86)
        canvas.faces(quads, light.fade(glass, distance))
        awning = self._grid(a, b, np.array([self.floor - 0.95]), np.array([self.floor - 0.35]), 0.94)
        canvas.faces(awning[::2], light.shade(self.shop, normal, distance))
        canvas.faces(awning[1::2], light.shade(self.shop * 0.6 + 95, normal, distance))

    def _windows(
        self,
        canvas: Canvas,
        a: tuple[float, float],
        b: tuple[float, float],
        normal: tuple[float, float, float],
        reach: float,
    ) -> None:
        """Frames, glass (dark, sky-coloured or lit) and a sill per window; far ones are left plain."""
        light, distance = canvas.light, self._distance(canvas)
        if distance > reach * 2:
            return
        floors = np.arange(self.floor if self.shop is not None else 0.0, self.height - self.floor * 0.8, self.floor)
        low = floors + self.floor * (1 - self.window[1]) * 0.55
        high = low + self.floor * self.window[1]
        frames = self._grid(a, b, low - 0.12, high + 0.12, min(0.95, self.window[0] + 0.12))
        glass = self._grid(a, b, low, high, self.window[0])
        if not len(glass):
            return
        canvas.faces(frames, light.shade(self.trim, normal, distance))
        sky = light.sky_low * 0.3 + light.sky_top * 0.25
        kind = np.resize(self.lit, len(glass))
        tones = ((0.0, 0.55, sky * 0.55), (0.55, 0.8, sky * 0.85), (0.8, 0.9, sky * 0.35))
        bright = 0.9 - 0.5 * light.lamps
        for from_, to, tone in tones:
            canvas.faces(glass[(kind >= from_) & (kind < to) & (kind < bright)], light.fade(tone, distance))
        lamp = np.array([255.0, 214.0, 140.0]) if light.lamps else sky * 1.1
        canvas.faces(glass[kind >= bright], light.fade(lamp, distance))

    def _grid(
        self, a: tuple[float, float], b: tuple[float, float], low: Points, high: Points, share: float
    ) -> NDArray[np.float64]:
        """Rectangles (N, 4, 3) on the wall from a to b: one per bay and storey, ``share`` of a bay wide."""
        start, along = np.array(a), np.array(b) - np.array(a)
        length = float(np.hypot(*along))
        bays = int(length / self.bay)
        if not bays or not len(low):
            return np.zeros((0, 4, 3))
        centre = (np.arange(bays) + 0.5) / bays
        half = share / bays / 2
        left, right = start + along * (centre - half)[:, None], start + along * (centre + half)[:, None]
        quads = np.zeros((len(low), bays, 4, 3))
        for corner, (ground, level) in enumerate(((left, low), (right, low), (right, high), (left, high))):
            quads[:, :, corner, 0], quads[:, :, corner, 2] = ground[None, :, 0], ground[None, :, 1]
            quads[:, :, corner, 1] = level[:, None]
        return quads.reshape(-1, 4, 3)
