"""The stuff of the street: sky, ground, trees."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.street.canvas import Canvas, Points

__all__ = ["Ground", "Sky", "Tree", "fractal_noise"]

_UP = (0.0, 1.0, 0.0)


def fractal_noise(rng: np.random.Generator, size: int, octaves: int) -> NDArray[np.float32]:
    """(size, size) in 0..1: sums of smoothed noise, each octave half as large and half as strong; tiles seamlessly."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = 4 << octave
        grid = np.pad(rng.random((cells, cells), np.float32), 2, mode="wrap")
        scale = size // cells
        smooth = cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += smooth[2 * scale : 2 * scale + size, 2 * scale : 2 * scale + size] / (1 << octave)
    total -= total.min()
    return np.asarray(total / total.max())


@dataclass(frozen=True)
class Sky:
    """A gradient, drifting clouds and the sun's glow."""

    clouds: NDArray[np.float32]
    """Square tile of cloud cover, 0..1."""
    drift: float
    """Tile widths per second."""

    def paint(self, canvas: Canvas, time: float) -> None:
        camera, light = canvas.camera, canvas.light
        height, width = camera.size
        rows = int(min(height, max(1, np.ceil(camera.horizon) + 1)))
        angle_up = np.arctan2(camera.horizon - np.arange(rows), camera.focal_pixels)
        share = np.clip(angle_up / 0.55, 0, 1)[:, None, None] ** 0.7
        sky = light.sky_low * (1 - share) + light.sky_top * share + np.zeros((1, width, 1))
        angle_right = camera.yaw + np.arctan((np.arange(width) + 0.5 - width / 2) / camera.focal_pixels)
        sun_right, sun_up = np.arctan2(light.direction[0], light.direction[2]), np.arcsin(light.direction[1])
        glow = np.exp(-((angle_right - sun_right) ** 2)[None] / 0.05 - (angle_up - sun_up)[:, None] ** 2 / 0.05)
        sky += (glow[:, :, None] * light.sun) * 110
        side = len(self.clouds)
        u = (angle_right * 0.5 + time * self.drift) * side
        v = side * 0.25 / np.maximum(angle_up + 0.12, 0.12)
        columns = np.broadcast_to((u % side).astype(np.float32), (rows, width))
        lines = np.broadcast_to((v % side).astype(np.float32)[:, None], (rows, width))
        cover = cv2.remap(self.clouds, columns, np.ascontiguousarray(lines), cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
        cover *= np.clip(angle_up / 0.1, 0, 1)[:, None].astype(np.float32)
        bright = np.clip((light.ambient * 0.75 + light.sun * 0.45) * 255, 0, 255)
        sky += (bright - sky) * cover[:, :, None]
        canvas.image[:rows] = np.clip(sky, 0, 255).astype(np.uint8)
        canvas.image[rows:] = np.clip(light.sky_low, 0, 255)
        canvas.ids[:] = canvas.segment


@dataclass(frozen=True)
class Ground:
    """Road along z with kerbs, lane marks and crossings; x in metres from the road's middle."""

    road: float
    """Half width of the road."""
    walk: float
    """Width of each sidewalk."""
    end: float
    """z where the street ends."""
    road_color: Points
    walk_color: Points
    dashes: float
    """Metres between the dashes of the middle line; 0: a full line."""
    crossings: tuple[float, ...]
    """z of zebra crossings."""
    parking: float
    """Width of the parking lanes; 0: none."""
    noise: NDArray[np.float32]
    """Square tile, 0..1."""
    roughness: float

    def paint(self, canvas: Canvas, road_id: int, walk_id: int, lawn_id: int) -> None:
        light, camera = canvas.light, canvas.camera
        start = camera.position[2] - 12
        canvas.segment = lawn_id
        self._strip(canvas, -400, 400, start, self.end + 900, np.array([92.0, 118.0, 62.0]))
        canvas.segment = walk_id
        outer = self.road + self.walk
        for side in (-1, 1):
            self._strip(canvas, side * self.road, side * outer, start, self.end, self.walk_color)
            self._strip(canvas, side * self.road, side * (self.road + 0.18), start, self.end, self.walk_color * 1.18)
        self._strip(canvas, -60, 60, self.end - 1.2, self.end + 2.5, self.walk_color)
        joints = [
            np.array(
                [
                    [side * self.road, 0, z],
                    [side * outer, 0, z],
                    [side * outer, 0, z + 0.04],
                    [side * self.road, 0, z + 0.04],
                ]
            )
            for side in (-1, 1)
            for z in np.arange(np.floor(camera.position[2]) + 2, camera.position[2] + 22, 1.5)
        ]
        canvas.faces(np.array(joints), light.shade(self.walk_color * 0.82, _UP, 8))
        canvas.segment = road_id
        self._strip(canvas, -self.road, self.road, start, self.end - 1.2, self.road_color)
        self._strip(canvas, -60, 60, self.end - 8.0, self.end - 1.2, self.road_color)
        self._marks(canvas)

    def texture(self, canvas: Canvas, shadow: NDArray[np.uint8], lawn_id: int) -> None:
        """Shadows (H, W, 0..255) and the grain of asphalt, stone and grass on all ground painted so far."""
        height = canvas.camera.size[0]
        top = int(max(0, np.floor(canvas.camera.horizon) + 1))
        if top >= height:
            return
        x, z = canvas.camera.ground(np.arange(top, height) + 0.5)
        mask = len(self.noise) - 1
        grain = self.noise[(z * 24).astype(np.int32) & mask, (x * 24).astype(np.int32) & mask] - 0.5
        blotch = self.noise[(z * 2.5).astype(np.int32) & mask, (x * 2.5).astype(np.int32) & mask] - 0.5
        near = np.exp(-(z - canvas.camera.position[2]) / 9)
        strength = np.where(canvas.ids[top:] == lawn_id, 1.6, 1.0) * self.roughness
        factor = 1 + (grain * near + blotch * 0.6) * strength
        sunlit = canvas.light.ambient + canvas.light.sun * max(0.15, canvas.light.direction[1])
        dark = (shadow[top:, :, None] / 255.0) * (1 - np.clip(canvas.light.ambient * 1.05 / sunlit, 0, 1))
        part = canvas.image[top:]
        part[:] = np.clip(part * (factor[:, :, None] * (1 - dark)), 0, 255).astype(np.uint8)

    def _strip(self, canvas: Canvas, x0: float, x1: float, z0: float, z1: float, color: Points) -> None:
        """A rectangle of ground, cut along z so that haze and light change with distance."""
        at = canvas.camera.position[2]
        bands = [z for z in (at + 10, at + 20, at + 32, at + 46) if z0 < z < z1]
        for a, b in zip([z0, *bands], [*bands, z1], strict=True):
            quad = np.array([[x0, 0, a], [x1, 0, a], [x1, 0, b], [x0, 0, b]])
            canvas.face(quad, canvas.light.shade(color, _UP, (a + b) / 2 - at))

    def _marks(self, canvas: Canvas) -> None:
        paint = canvas.light.shade((225, 225, 220), _UP, 12)
        at = canvas.camera.position[2]
        if self.dashes:
            first = np.floor((at - 6) / self.dashes) * self.dashes
            starts = np.arange(first, self.end - 9, self.dashes)
            canvas.faces(_rects(-0.08, 0.08, starts, starts + self.dashes * 0.45), paint)
        else:
            self._strip(canvas, -0.08, 0.08, at - 6, self.end - 8, np.array([230.0, 225.0, 210.0]))
        if self.parking:
            for side in (-1, 1):
                edge = side * (self.road - self.parking)
                self._strip(canvas, edge - 0.05, edge + 0.05, at - 6, self.end - 8, np.array([205.0, 205.0, 200.0]))
        for z in self.crossings:
            for x in np.arange(-self.road + 0.3, self.road - 0.5, 1.0):
                canvas.faces(
                    _rects(x, x + 0.5, np.array([z]), np.array([z + 2.6])),
                    canvas.light.shade((228, 228, 224), _UP, z - at),
                )


@dataclass(frozen=True)
class Tree:
    """A trunk (none for a bush) and a crown of balls of foliage."""

    x: float
    z: float
    trunk: float
    """Height of the crown's foot in metres."""
    balls: Points
    """(N, 3) centres relative to the foot of the tree."""
    radii: NDArray[np.float64]
    tones: NDArray[np.float64]
    """Brightness of every ball."""
    color: Points

    def paint(self, canvas: Canvas, time: float) -> None:
        foot = np.array([self.x, 0.0, self.z])
        distance = canvas.depth(foot[None])
        if distance < 3.0:
            return
        if self.trunk:
            side = np.array([np.cos(canvas.camera.yaw), 0, -np.sin(canvas.camera.yaw)])
            low, top = side * 0.17, np.array([0, self.trunk + 1.0, 0])
            shape = np.array([foot - low, foot + low, foot + low * 0.6 + top, foot - low * 0.6 + top])
            canvas.face(shape, canvas.light.shade((98, 76, 58), (0, 0.4, -0.6), distance))
        sway = np.stack(
            [0.04 * np.sin(time * 1.7 + self.balls[:, 1] * 2 + self.x), 0 * self.tones, 0 * self.tones], axis=1
        )
        direction = self.balls - self.balls.mean(axis=0)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-6
        facing = np.clip(direction @ canvas.light.direction, 0, 1)[:, None]
        lit = self.color * self.tones[:, None] * (canvas.light.ambient + canvas.light.sun * (0.3 + 0.6 * facing))
        share = np.exp(-distance / canvas.light.haze)
        canvas.discs(foot + self.balls + sway, self.radii, lit * share + canvas.light.sky_low * (1 - share))


def _rects(x0: float, x1: float, z0: NDArray[np.float64], z1: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rectangles (N, 4, 3) on the ground, between x0 and x1."""
    quads = np.zeros((len(z0), 4, 3))
    quads[:, :, 0] = (x0, x1, x1, x0)
    quads[:, :, 2] = np.stack([z0, z0, z1, z1], axis=1)
    return quads
