"""Overlays: which pixels change, towards which colour, and that nothing else does."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Result, Segment, Semantic
from proscale_deploy.runtime.draw import ClassShare, class_shares, overlay, render
from support.results import CLASSES, SIZE, frame, instances, panoptic, semantic

BGR = {info.name: np.array(info.color[::-1]) for info in CLASSES}
FRAME = frame().image


def enlarged() -> Panoptic:
    """480x640."""
    return Panoptic(np.kron(panoptic().map, np.ones((8, 8), np.int32)), panoptic().segments)


def test_pixels_without_segment_stay() -> None:
    image = overlay(FRAME, panoptic(), CLASSES)
    np.testing.assert_array_equal(image[:8, :8], FRAME[:8, :8])


def test_segments_take_their_class_colour() -> None:
    image = overlay(FRAME, panoptic(), CLASSES)
    for (y, x), name in [((3, 70), "sky"), ((55, 3), "road"), ((22, 33), "car")]:
        np.testing.assert_allclose(image[y, x], (BGR[name] + 100) / 2, atol=1)


def test_semantic_needs_no_segments() -> None:
    image = overlay(FRAME, semantic(), CLASSES)
    for (y, x), name in [((3, 3), "sky"), ((55, 3), "road"), ((22, 33), "car")]:
        np.testing.assert_allclose(image[y, x], (BGR[name] + 100) / 2, atol=1)


@pytest.mark.parametrize("opacity", [0.0, 0.2, 0.75, 1.0])
def test_opacity_is_the_share_of_the_colour(opacity: float) -> None:
    image = overlay(FRAME, semantic(), CLASSES, opacity)
    for (y, x), name in [((3, 3), "sky"), ((55, 3), "road"), ((22, 33), "car")]:
        np.testing.assert_allclose(image[y, x], opacity * BGR[name] + (1 - opacity) * 100, atol=1)


def test_without_tint_the_outlines_stay() -> None:
    image = overlay(FRAME, semantic(), CLASSES, 0.0)
    assert (image[29:31, 3] > 120).any(axis=1).all(), "where road and sky meet"


@pytest.mark.parametrize("opacity", [-0.1, 1.01, float("nan")])
def test_opacity_outside_its_range(opacity: float) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        overlay(FRAME, panoptic(), CLASSES, opacity)


@pytest.mark.parametrize(
    ("result", "counts"), [(panoptic(), {0: 1, 1: 1, 2: 1}), (instances(), {2: 2}), (semantic(), {0: 1, 1: 1, 2: 1})]
)
def test_class_shares_count_what_is_seen(result: Result, counts: dict[int, int]) -> None:
    labels = np.zeros(SIZE, np.int64)
    if isinstance(result, Panoptic):
        for segment in result.segments:
            labels[result.map == segment.id] = segment.class_id + 1
    elif isinstance(result, Semantic):
        labels = result.map + 1
    else:
        for index in np.flatnonzero(result.scores >= 0.5):
            labels[result.mask(int(index))] = result.classes[index] + 1
    expected = [ClassShare(c, float((labels == c + 1).mean()), n) for c, n in counts.items()]
    assert class_shares(result, CLASSES) == expected


def test_a_large_frame_is_reduced_before_it_is_drawn_on() -> None:
    def scaled(times: int) -> tuple[np.ndarray, Panoptic]:
        segments = tuple(replace(segment, area=times**2 * segment.area) for segment in panoptic().segments)
        ids = np.kron(panoptic().map, np.ones((times, times), np.int32))
        return np.full((*ids.shape, 3), 100, np.uint8), Panoptic(ids, segments)

    whole = overlay(*scaled(4), CLASSES)
    np.testing.assert_array_equal(overlay(*scaled(8), CLASSES, longest_side=320), whole)
    np.testing.assert_array_equal(overlay(*scaled(4), CLASSES, longest_side=320), whole)


def test_nothing_found_has_no_shares() -> None:
    assert class_shares(Panoptic(np.zeros(SIZE, np.int32), ()), CLASSES) == []


def test_outlines_are_lighter_than_what_they_surround() -> None:
    image = overlay(np.full((480, 640, 3), 100, np.uint8), enlarged(), CLASSES).astype(int)
    assert (image[165:180, 240].sum(axis=1) > image[165:180, 245].sum(axis=1) + 100).all()


def test_the_frame_is_not_changed() -> None:
    before = FRAME.copy()
    for result in (panoptic(), instances(), semantic()):
        assert render(FRAME, result, CLASSES) is not FRAME
        np.testing.assert_array_equal(FRAME, before)


def test_poor_instances_are_not_drawn_and_better_ones_are_on_top() -> None:
    image = overlay(FRAME, instances(), CLASSES)
    np.testing.assert_array_equal(image[55, 65], FRAME[55, 65])
    np.testing.assert_allclose(image[25, 12], (BGR["car"] + 100) / 2, atol=1)
    assert np.abs(image[25, 12].astype(int) - image[38, 48]).max() > 10, "two cars, one shade"


def test_instances_of_one_class_differ_in_shade() -> None:
    ids = np.repeat(np.arange(1, 13, dtype=np.int32), 40)[None].repeat(8, axis=0)
    segments = tuple(Segment(i, 2, True, 320, 1.0) for i in range(1, 13))
    image = overlay(np.zeros((8, 480, 3), np.uint8), Panoptic(ids, segments), CLASSES)
    shades = image[4, 20::40].astype(int)
    apart = np.abs(shades[:, None] - shades[None]).sum(axis=2) + 99 * np.eye(12, dtype=int)
    assert apart.min() >= 4


def test_nothing_found_leaves_the_frame() -> None:
    empty = np.zeros((0, 4), np.int32)
    nothing = [
        Panoptic(np.zeros(SIZE, np.int32), ()),
        Instances(SIZE, np.zeros(0, np.float32), np.zeros(0, np.int64), empty, ()),
    ]
    for result in nothing:
        np.testing.assert_array_equal(overlay(FRAME, result, CLASSES), FRAME)
        assert render(FRAME, result, CLASSES).shape[0] > SIZE[0]


def test_names_are_inside_the_frame_and_readable() -> None:
    """White text on a dark panel near the middle of a large segment."""
    result = Panoptic(np.ones((240, 320), np.int32), (Segment(1, 0, False, 240 * 320, 1.0),))
    image = overlay(np.full((240, 320, 3), 90, np.uint8), result, CLASSES)
    bright = np.argwhere(image.min(axis=2) > 150)
    assert len(bright) > 20
    assert (np.abs(bright.mean(axis=0) - [120, 160]) < 20).all()


def test_a_name_too_long_for_its_segment_hides_no_other() -> None:
    classes = ClassInfo("wider than what bears it" * 3, False, (0, 0, 0)), ClassInfo("b", False, (0, 0, 0))
    ids = np.zeros((240, 320), np.int32)
    ids[20:70, 20:70], ids[150:195, 200:250] = 1, 2
    result = Panoptic(ids, (Segment(1, 0, False, 2500, 1.0), Segment(2, 1, False, 2250, 1.0)))
    bright = overlay(np.zeros((240, 320, 3), np.uint8), result, classes, opacity=0.0).min(axis=2) > 150
    assert bright[150:195, 200:250].any()
    assert not bright[20:70, 20:70].any()


def test_legend_height_depends_on_the_frame_only() -> None:
    many = tuple(ClassInfo(f"a class with a long name {i}", False, (i, i, i)) for i in range(150))
    crowd = Semantic((np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 150).astype(np.int32), np.ones(SIZE, np.float32))
    assert render(FRAME, crowd, many).shape == render(FRAME, panoptic(), CLASSES).shape


def test_legend_shows_the_colours_of_the_classes() -> None:
    strip = render(np.zeros((480, 640, 3), np.uint8), enlarged(), CLASSES)[480:]
    for name in ("sky", "road", "car"):
        assert (strip == BGR[name].astype(np.uint8)).all(axis=2).sum() > 50


def test_legend_calls_no_class_that_is_seen_zero_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(cv2, "putText", lambda image, text, *_: written.append(text))
    labels = np.zeros((480, 640), np.int32)
    labels[0, :100], labels[1, :] = 2, 1
    render(np.zeros((480, 640, 3), np.uint8), Semantic(labels, np.ones((480, 640), np.float32)), CLASSES)
    assert {"road 99.8%", "sky 0.2%", "car <0.1%"} <= set(written)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (17, 19)])
def test_tiny_and_narrow_frames(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    result = Semantic(np.zeros(size, np.int32), np.ones(size, np.float32))
    drawn = render(image, result, CLASSES)
    assert drawn.shape[1] == size[1]
    np.testing.assert_allclose(drawn[0, 0], BGR["road"] / 2, atol=1)


def test_a_result_of_another_size() -> None:
    with pytest.raises(InputError, match="60x80"):
        overlay(np.zeros((10, 10, 3), np.uint8), panoptic(), CLASSES)


def test_the_picture_can_be_written() -> None:
    image = render(FRAME, panoptic(), CLASSES)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert cv2.imencode(".png", image)[0]
