"""The world is exact: the truth names every pixel, belongs to the picture, and moves with it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from samples.street.canvas import Camera, Canvas
from samples.street.planning import plan
from samples.street.world import CLASSES, SMALLEST_THING, Scene

SIZE = (96, 160)
SEEDS = (0, 7, 19, 2_000_003)


def test_a_seed_is_one_street() -> None:
    first, again, other = (Scene(seed).frame(1.5, SIZE) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[2] == again[2]
    assert (first[1] != other[1]).mean() > 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pixel_has_a_segment(seed: int) -> None:
    image, ids, segments = Scene(seed).frame(2.0, SIZE)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8
    assert ids.shape == SIZE
    assert ids.dtype == np.int32
    assert {s.id: s.area for s in segments} == dict(zip(*np.unique(ids, return_counts=True), strict=True))
    assert all(s.id > 0 and s.is_thing == CLASSES[s.class_id].is_thing for s in segments)
    stuff = [s.class_id for s in segments if not s.is_thing]
    assert len(stuff) == len(set(stuff))
    assert min(s.area for s in segments if s.is_thing) >= SMALLEST_THING * ids.size


def test_all_classes_occur() -> None:
    seen = {s.class_id for seed in range(12) for s in Scene(seed).frame(0.0, SIZE)[2]}
    assert seen == set(range(len(CLASSES)))


def edges(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Pixels whose right neighbour belongs to another segment."""
    return ids[:, 1:] != ids[:, :-1]


@pytest.mark.parametrize("seed", SEEDS)
def test_picture_and_truth_lie_on_each_other(seed: int) -> None:
    image, ids, _ = Scene(seed).frame(2.0, (192, 320))
    contrast = np.abs(np.diff(image.astype(np.float64), axis=1)).sum(-1)
    edge = edges(ids)
    edge[:, :8], edge[:, -8:] = False, False
    there = contrast[edge].mean()
    away = [contrast[np.roll(edge, shift, axis=1)].mean() for shift in (-4, 4)]
    assert there > 1.3 * max(away)


@pytest.mark.parametrize("seed", SEEDS)
def test_size_does_not_change_the_street(seed: int) -> None:
    scene = Scene(seed)
    _, small, of_small = scene.frame(2.0, SIZE, smallest_thing=0.0)
    _, large, of_large = scene.frame(2.0, (4 * SIZE[0], 4 * SIZE[1]), smallest_thing=0.0)
    assert (large[2::4, 2::4] == small).mean() > 0.93
    assert {s.id for s in of_small} <= {s.id for s in of_large}


@pytest.mark.parametrize("seed", SEEDS)
def test_motion_is_coherent(seed: int) -> None:
    scene = Scene(seed)
    (image, ids, _), (following, later_ids, _), (_, much_later, _) = (scene.frame(t, SIZE) for t in (2.0, 2.04, 5.0))
    assert (image != following).any()
    soon, late = (ids != later_ids).mean(), (ids != much_later).mean()
    assert soon < 0.04
    assert late > soon


def test_what_is_nearer_hides_what_is_farther() -> None:
    for seed in SEEDS:
        scene = Scene(seed)
        _, ids, segments = scene.frame(2.0, SIZE)
        canvas = Canvas(scene.plan.camera(2.0, SIZE), scene.plan.light)
        for segment in segments:
            if segment.is_thing:
                thing = scene.plan.things[segment.id - 100][1]
                alone = Canvas(canvas.camera, canvas.light, segment=1)
                thing.paint(alone, 2.0)
                covered = np.unique(ids[(alone.ids == 1) & (ids != segment.id)])
                nearest = canvas.depth(thing.footprint(2.0))
                for other in covered[covered >= 100]:
                    assert canvas.depth(scene.plan.things[other - 100][1].footprint(2.0)) <= nearest


def test_camera_agrees_with_itself() -> None:
    camera = Camera((1.0, 2.0, 3.0), yaw=0.2, pitch=-0.1, focal=0.9, size=(100, 160))
    rows = np.array([70.5, 90.5])
    x, z = camera.ground(rows)
    points = np.stack([x, np.zeros_like(x), z], axis=-1).reshape(-1, 3)
    pixels = camera.screen(camera.view(points)).reshape(2, 160, 2)
    np.testing.assert_allclose(pixels[:, :, 0], np.broadcast_to(np.arange(160) + 0.5, (2, 160)), atol=1e-9)
    np.testing.assert_allclose(pixels[:, :, 1], np.broadcast_to(rows[:, None], (2, 160)), atol=1e-9)
    far_ahead = camera.position + 1e7 * np.array([[np.sin(0.2), 0.0, np.cos(0.2)]])
    np.testing.assert_allclose(camera.screen(camera.view(far_ahead))[0], [80, camera.horizon], atol=1e-3)


def test_streets_differ_in_what_they_show() -> None:
    plans = [plan(seed) for seed in range(40)]
    assert {p.light.lamps > 0 for p in plans} == {True, False}
    assert {p.speed > 0 for p in plans} == {True, False}
    assert len({len(p.things) for p in plans}) > 8
    assert len({p.ground.road for p in plans}) == 40
