"""Draws a street from a seed: time of day, camera, buildings, trees, traffic and people."""

from dataclasses import dataclass

import numpy as np

from proscale_deploy.core.types import Size
from samples.street.blocks import line_with_buildings, line_with_trees
from samples.street.buildings import Building
from samples.street.canvas import Camera, Light, Points
from samples.street.population import populate
from samples.street.scenery import Ground, Sky, Tree, fractal_noise
from samples.street.things import Thing

__all__ = ["Exposure", "Plan", "plan"]


@dataclass(frozen=True)
class Exposure:
    """The picture taker: gain per channel (RGB), gamma, noise in grey levels, darkening of the corners."""

    gain: Points
    gamma: float
    noise: float
    vignette: float


@dataclass(frozen=True)
class Plan:
    """All that a street is made of."""

    light: Light
    sky: Sky
    ground: Ground
    buildings: tuple[Building, ...]
    """Far to near."""
    trees: tuple[Tree, ...]
    things: tuple[tuple[int, Thing], ...]
    """(class, thing)"""
    exposure: Exposure
    position: tuple[float, float, float]
    speed: float
    """Of the camera along z, metres per second."""
    yaw: float
    swing: float
    """Radians the camera pans to either side."""
    pitch: float
    focal: float

    def camera(self, time: float, size: Size) -> Camera:
        """Where the camera stands and looks after ``time`` seconds."""
        x, y, z = self.position
        yaw = self.yaw + self.swing * float(np.sin(0.55 * time))
        bob = 0.004 * float(np.sin(2.3 * time)) if self.speed else 0.0
        return Camera((x, y, z + self.speed * time), yaw, self.pitch + bob, self.focal, size)


def plan(seed: int) -> Plan:
    """The street of a seed."""
    rng = np.random.default_rng(seed)
    light = _light(rng)
    noise = fractal_noise(rng, 256, 6)
    parking = 2.1 if rng.random() < 0.65 else 0.0
    road, walk = 3.4 + parking + rng.uniform(0, 0.5), rng.uniform(2.6, 4.2)
    driving = rng.random() < 0.6
    speed = float(rng.uniform(1.5, 4.0)) if driving else 0.0
    end = float(rng.uniform(46, 62) + 4 * speed)
    if driving:
        position = (float(rng.uniform(1.3, 2.1)), float(rng.uniform(1.35, 2.1)), 0.0)
        yaw, swing, pitch = rng.normal(0, 0.05), rng.uniform(0, 0.05), rng.uniform(-0.07, 0.02)
    else:
        x = rng.uniform(-road - walk + 1.0, road + walk - 1.0)
        position = (float(x), float(rng.uniform(1.7, 4.6)), 0.0)
        yaw = -x / 26 + rng.normal(0, 0.1)
        swing, pitch = rng.uniform(0, 0.13), -rng.uniform(0.02, 0.05) * position[1]
    crossings = tuple(float(z) for z in rng.uniform(9, end - 14, rng.integers(0, 3)))
    grey = rng.uniform(70, 125)
    ground = Ground(
        road=road,
        walk=walk,
        end=end,
        road_color=np.array([grey, grey, grey * rng.uniform(1.0, 1.08)]),
        walk_color=rng.uniform(140, 195) * np.array([1.0, rng.uniform(0.94, 1.0), rng.uniform(0.84, 0.98)]),
        dashes=float(rng.choice([0.0, 4.0, 6.0])),
        crossings=crossings,
        parking=parking,
        noise=noise,
        roughness=float(rng.uniform(0.15, 0.5)),
    )
    things = populate(rng, ground, speed, position)
    cover = np.clip((fractal_noise(rng, 256, 5) - rng.uniform(0.35, 0.75)) * rng.uniform(2, 4), 0, 1)
    return Plan(
        light=light,
        sky=Sky(cover * np.float32(rng.uniform(0.6, 1.0)), float(rng.uniform(-0.01, 0.01))),
        ground=ground,
        buildings=line_with_buildings(rng, ground),
        trees=line_with_trees(rng, ground),
        things=things,
        exposure=Exposure(
            gain=rng.uniform(0.88, 1.14) * rng.uniform(0.96, 1.04, 3),
            gamma=float(rng.uniform(0.82, 1.12)),
            noise=float(rng.uniform(0.5, 4.0)),
            vignette=float(rng.uniform(0.0, 0.3)),
        ),
        position=position,
        speed=speed,
        yaw=float(yaw),
        swing=float(swing),
        pitch=float(pitch),
        focal=float(rng.uniform(1.0, 1.35)),
    )


_HOURS: tuple[tuple[float, tuple[tuple[float, float, float], ...], float, float], ...] = (
    # share; sun, ambient (factors), sky top, sky low (RGB); haze in metres; lamps
    (0.34, ((0.80, 0.76, 0.68), (0.50, 0.54, 0.62), (62, 128, 208), (188, 214, 236)), 220, 0.0),
    (0.22, ((1.05, 0.72, 0.40), (0.46, 0.45, 0.54), (88, 128, 190), (252, 206, 152)), 130, 0.0),
    (0.20, ((0.08, 0.08, 0.08), (0.78, 0.80, 0.83), (168, 178, 188), (214, 219, 222)), 110, 0.0),
    (0.12, ((0.30, 0.18, 0.14), (0.40, 0.38, 0.50), (44, 48, 104), (232, 138, 112)), 110, 0.6),
    (0.12, ((0.05, 0.06, 0.09), (0.24, 0.26, 0.38), (12, 17, 42), (58, 62, 96)), 120, 1.0),
)


def _light(rng: np.random.Generator) -> Light:
    """A time of day, mixed with a little of another by day."""
    shares = np.array([hour[0] for hour in _HOURS])
    chosen = int(rng.choice(len(_HOURS), p=shares / shares.sum()))
    other = int(rng.integers(0, 3)) if chosen < 3 else chosen
    mix = rng.uniform(0, 0.35)
    (_, a, haze, lamps), (_, b, _, _) = _HOURS[chosen], _HOURS[other]
    sun, ambient, top, low = (np.array(p) * (1 - mix) + np.array(q) * mix for p, q in zip(a, b, strict=True))
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.35, 1.05) if chosen != 1 else rng.uniform(0.22, 0.4)
    direction = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    return Light(sun, ambient, direction, top, low, haze * rng.uniform(0.7, 1.6), lamps)
