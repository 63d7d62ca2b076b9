"""Cars, vans and buses."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samples.street.canvas import Canvas, Points
from samples.street.things import CIRCLE, Thing

__all__ = ["Vehicle"]

_GLASS = np.array([52.0, 62.0, 72.0])


@dataclass(frozen=True)
class Vehicle(Thing):
    """A car, van or bus: its side view extruded over its width."""

    profile: Points
    """(N, 2) along and up, from the rear bumper over the roof to the front bumper."""
    glass: tuple[int, ...]
    """Strips of the profile (between vertex i and i + 1) that are windows."""
    width: float
    side_windows: tuple[Points, ...]
    """(4, 2) each, along and up."""
    wheels: tuple[tuple[float, float], ...]
    """(along, radius)."""
    stripe: Points | None
    """A band of colour along the side."""

    @property
    def height(self) -> float:
        return float(self.profile[:, 1].max()) * self.scale

    def footprint(self, time: float) -> Points:
        rear, front, half = self.profile[0, 0], self.profile[-1, 0], self.width / 2
        return self.place(np.array([[rear, 0, -half], [front, 0, -half], [front, 0, half], [rear, 0, half]]), time)

    def paint(self, canvas: Canvas, time: float) -> None:
        distance = max(0.5, canvas.depth(self.footprint(time)))
        across = self._half_width(self.profile[:, 1])
        left = self.place(np.column_stack([self.profile, -across]), time)
        right = self.place(np.column_stack([self.profile, across]), time)
        self._underside(canvas, time)
        self._strips(canvas, left, right, distance)
        for sign in (-1, 1):
            self._side(canvas, sign, time, distance)
        self._lamps(canvas, time)

    def _half_width(self, up: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bodies lean inwards above the waist."""
        waist = 0.62 * self.profile[:, 1].max()
        lean = 0.2 if self.height < 2.4 else 0.02
        return np.asarray(self.width / 2 - lean * np.clip((up - waist) / (self.profile[:, 1].max() - waist), 0, 1))

    def _underside(self, canvas: Canvas, time: float) -> None:
        """The dark between the wheels: walls of the footprint up to the bumpers."""
        foot, low = self.footprint(time), self.profile[0, 1]
        dark = canvas.light.fade(np.array([24.0, 24.0, 27.0]), canvas.depth(foot))
        inset = foot * 0.9 + foot.mean(axis=0) * 0.1
        for a, b in zip(inset, np.roll(inset, -1, axis=0), strict=True):
            gap, up = np.array([0, 0.08, 0]), np.array([0, low * self.scale + 0.02, 0])
            canvas.face(np.array([a + gap, b + gap, b + up, a + up]), dark)

    def _strips(self, canvas: Canvas, left: Points, right: Points, distance: float) -> None:
        order = sorted(range(len(left) - 1), key=lambda i: -float(canvas.camera.view(left[i : i + 2])[:, 2].mean()))
        for i in order:
            quad = np.array([left[i], left[i + 1], right[i + 1], right[i]])
            normal = np.cross(quad[1] - quad[0], quad[3] - quad[0])
            normal /= np.linalg.norm(normal) + 1e-9
            if np.dot(normal, quad[0] - np.asarray(canvas.camera.position)) > 0:
                continue
            canvas.face(quad, canvas.light.shade(self.color, normal, distance))
            if i in self.glass:
                middle = quad.mean(axis=0)
                canvas.face(
                    middle + (quad - middle) * 0.86, canvas.light.fade(_GLASS * (canvas.light.ambient + 0.25), distance)
                )

    def _side(self, canvas: Canvas, sign: int, time: float, distance: float) -> None:
        normal = np.array([np.cos(self.heading), 0, -np.sin(self.heading)]) * sign
        if (
            np.dot(
                normal, self.place(np.array([0, 0.5, sign * self.width / 2]), time) - np.asarray(canvas.camera.position)
            )
            > 0
        ):
            return
        light = canvas.light

        def on_side(shape: Points) -> Points:
            return self.place(np.column_stack([shape, sign * self._half_width(shape[:, 1])]), time)

        canvas.face(on_side(self.profile), light.shade(self.color, normal, distance))
        rear, front = self.profile[:, 0].min(), self.profile[:, 0].max()
        sill = np.array([[rear, 0.3], [front, 0.3], [front, 0.42], [rear, 0.42]])
        canvas.face(on_side(sill), light.shade(self.color * 0.45, normal, distance))
        if self.stripe is not None:
            band = np.array([[rear, 0.75], [front, 0.75], [front, 1.1], [rear, 1.1]])
            canvas.face(on_side(band), light.shade(self.stripe, normal, distance))
        for window in self.side_windows:
            canvas.face(on_side(window), light.fade(_GLASS * (light.ambient + 0.35 * light.sun), distance))
        for along, radius in self.wheels:
            for share, tone in ((1.0, 26.0), (0.55, 150.0), (0.2, 70.0)):
                wheel = np.array([along, radius]) + CIRCLE * radius * share
                canvas.face(on_side(wheel), light.fade(np.full(3, tone) * light.ambient * 1.3, distance))

    def _lamps(self, canvas: Canvas, time: float) -> None:
        half = self.width / 2
        for end, color in ((0, (190.0, 26.0, 22.0)), (-1, (245.0, 240.0, 215.0))):
            along = self.profile[end, 0]
            outward = self.place(np.array([np.sign(along), 0, 0]), 0.0) - self.place(np.zeros(3), 0.0)
            centre = self.place(np.array([along, 0.7, 0]), time)
            if np.dot(outward, centre - np.asarray(canvas.camera.position)) > 0:
                continue
            glow = np.array(color) * (0.8 + 0.6 * canvas.light.lamps)
            distance = canvas.depth(centre[None])
            for side in (-1, 1):
                y = side * np.array([half - 0.42, half - 0.04])
                lamp = np.array([[along, 0.66, y[0]], [along, 0.66, y[1]], [along, 0.84, y[1]], [along, 0.84, y[0]]])
                canvas.face(self.place(lamp, time), canvas.light.fade(glow, distance))
            plate = np.array([[along, 0.45, -0.26], [along, 0.45, 0.26], [along, 0.57, 0.26], [along, 0.57, -0.26]])
            canvas.face(self.place(plate, time), canvas.light.shade((225, 225, 215), (0, 0, -1), distance))
