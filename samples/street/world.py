"""A street made of a seed: what stands where, and pictures of it at any time and size, with exact panoptic truth."""

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import Segment, Size
from samples.street.canvas import Canvas
from samples.street.planning import Plan, plan
from samples.street.population import CLASSES
from samples.street.scenery import Tree
from samples.street.things import Thing

__all__ = ["CLASSES", "SMALLEST_THING", "Scene"]

SMALLEST_THING = 2.5e-3
"""Share of the picture: what shows less is hard to name even for people."""


class Scene:
    """One street. ``Scene(seed).frame(t, size)`` is the same on every call and every machine."""

    def __init__(self, seed: int) -> None:
        self.plan: Plan = plan(seed)
        self.seed = seed

    def frame(
        self, time: float, size: Size, smallest_thing: float = SMALLEST_THING
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], tuple[Segment, ...]]:
        """The street at ``time`` seconds, ``size`` = (height, width).

        Things that show less than ``smallest_thing`` of the picture are not in it: neither painted nor in the truth.

        Returns:
            image uint8 (H, W, 3) BGR; map int32 (H, W), every pixel the id of a segment; the segments, score 1.
        """
        canvas = Canvas(self.plan.camera(time, size), self.plan.light)
        things = {_THING_ID + i: t for i, (_, t) in enumerate(self.plan.things) if self._in_view(canvas, t, time)}
        self._paint_standing(canvas, things, time)
        shown = np.bincount(canvas.ids.ravel(), minlength=_THING_ID + len(self.plan.things))
        # Leaving something out can only uncover what is behind it, so one look is enough.
        things = {i: thing for i, thing in things.items() if shown[i] >= max(1.0, smallest_thing * canvas.ids.size)}
        self._paint_ground(canvas, things, time)
        self._paint_standing(canvas, things, time)
        return self._expose(canvas.image, time), canvas.ids, self._segments(canvas.ids)

    def _segments(self, ids: NDArray[np.int32]) -> tuple[Segment, ...]:
        segments = []
        for identity, area in zip(*(a.tolist() for a in np.unique(ids, return_counts=True)), strict=True):
            class_id = self.plan.things[identity - _THING_ID][0] if identity >= _THING_ID else identity - 1
            segments.append(Segment(identity, class_id, CLASSES[class_id].is_thing, area, 1.0))
        return tuple(segments)

    def _paint_ground(self, canvas: Canvas, things: dict[int, Thing], time: float) -> None:
        plan = self.plan
        canvas.segment = _STUFF_ID["sky"]
        plan.sky.paint(canvas, time)
        plan.ground.paint(canvas, _STUFF_ID["road"], _STUFF_ID["sidewalk"], _STUFF_ID["vegetation"])
        shadows = self._shadows(canvas, time, list(things.values()))
        plan.ground.texture(canvas, shadows, _STUFF_ID["vegetation"])
        canvas.segment = _STUFF_ID["building"]
        for building in plan.buildings:
            building.paint(canvas)

    def _paint_standing(self, canvas: Canvas, things: dict[int, Thing], time: float) -> None:
        """All that can hide other things, far to near."""
        standing: list[tuple[float, int, Thing | Tree]] = []
        standing += [(canvas.depth(thing.footprint(time)), i, thing) for i, thing in things.items()]
        for tree in self.plan.trees:
            standing.append((canvas.depth(np.array([[tree.x, 0.0, tree.z]])), _STUFF_ID["vegetation"], tree))
        for _, identity, item in sorted(standing, key=lambda entry: -entry[0]):
            canvas.segment = identity
            item.paint(canvas, time)

    def _in_view(self, canvas: Canvas, thing: Thing, time: float) -> bool:
        """In front of the camera and this side of the end of the street."""
        foot = thing.footprint(time)
        return canvas.depth(foot) > 1.2 and float(foot[:, 2].max()) < self.plan.ground.end + 1

    def _shadows(self, canvas: Canvas, time: float, things: list[Thing]) -> NDArray[np.uint8]:
        """How dark (0..255) the ground is under every pixel."""
        shadow = np.zeros(canvas.camera.size, np.uint8)
        light = canvas.light
        cast = int(min(255, 330 * float(light.sun.mean())))

        def drop(base: NDArray[np.float64], height: float, strength: int) -> None:
            dx, dz = light.shadow_of(height)
            hull = cv2.convexHull(np.concatenate([base, base + np.array([dx, 0, dz])])[:, [0, 2]].astype(np.float32))[
                :, 0
            ]
            shape = canvas.outline(np.insert(hull.astype(np.float64), 1, 0.0, axis=1))
            if shape is not None:
                layer = np.round(shape * 16 - 8).astype(np.int32)
                cv2.fillPoly(shadow, [layer], (strength,), cv2.LINE_AA, 4)

        if cast > 25:
            for building in self.plan.buildings:
                drop(building.footprint(), building.height, cast)
            for tree in self.plan.trees:
                if tree.trunk:
                    crown = np.array([tree.x, 0, tree.z]) + _OCTAGON * float(tree.radii.max() + 0.7)
                    dx, dz = light.shadow_of(tree.trunk + 1.0)
                    drop(crown + np.array([dx, 0, dz]), 1.5, cast)
            for thing in things:
                drop(thing.footprint(time), thing.height, cast)
        for thing in things:
            foot = thing.footprint(time)
            drop(foot * 1.08 - foot.mean(axis=0) * 0.08, 0.0, max(cast, 190))
        blur = max(1, canvas.camera.size[1] // 200) | 1
        return np.asarray(cv2.blur(shadow, (blur, blur)))

    def _expose(self, image: NDArray[np.uint8], time: float) -> NDArray[np.uint8]:
        """Gain, tint, contrast, vignette and the sensor's noise; RGB in, BGR out."""
        exposure = self.plan.exposure
        height, width = image.shape[:2]
        levels = np.arange(256, dtype=np.float32)[:, None] / 255
        curve = np.clip(255 * (levels * exposure.gain.astype(np.float32)) ** exposure.gamma, 0, 255)
        bgr = cv2.LUT(image, curve.astype(np.uint8)[None])[:, :, ::-1]
        noise = np.random.default_rng((self.seed, round(time * 1000))).normal(0, exposure.noise, (height, width))
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
        x = np.linspace(-1, 1, width, dtype=np.float32)[None] ** 2
        fall = 1 - exposure.vignette * (x + y) / 2
        lit = bgr * fall[:, :, None] + noise.astype(np.float32)[:, :, None]
        return np.clip(lit, 0, 255).astype(np.uint8)


_OCTAGON = np.array([[np.cos(a), 0, np.sin(a)] for a in np.arange(8) * np.pi / 4])
_STUFF_ID = {info.name: index + 1 for index, info in enumerate(CLASSES) if not info.is_thing}
_THING_ID = 100
