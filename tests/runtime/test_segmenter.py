"""The way from frames to results, with a network whose answer is known."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import Instances, Panoptic, Semantic, Thresholds
from proscale_deploy.runtime.segmenter import Segmenter
from support.color_model import MANIFEST, ColorSession, picture


def segmenter(thresholds: Thresholds | None = None) -> Segmenter:
    return Segmenter(ColorSession(), thresholds)  # type: ignore[arg-type]


def area(result: Panoptic, name: str) -> int:
    classes = MANIFEST.classes
    return sum(segment.area for segment in result.segments if classes[segment.class_id].name == name)


def test_panoptic_at_the_size_of_the_frame() -> None:
    result = segmenter()(picture())
    assert isinstance(result, Panoptic)
    assert result.map.shape == (120, 180)
    assert area(result, "sky") == pytest.approx(60 * 180, rel=0.1)
    assert area(result, "car") == pytest.approx(40 * 40, rel=0.3)
    car = next(segment for segment in result.segments if segment.is_thing)
    rows, columns = np.nonzero(result.map == car.id)
    assert rows.mean() == pytest.approx(79.5, abs=3)
    assert columns.mean() == pytest.approx(59.5, abs=3)


def test_every_task_has_its_result() -> None:
    model = segmenter()
    assert isinstance(model(picture(), "panoptic"), Panoptic)
    assert isinstance(model(picture(), "instance"), Instances)
    assert isinstance(model(picture(), "semantic"), Semantic)


def test_a_batch_of_frames_of_different_sizes_equals_its_frames_alone() -> None:
    model = segmenter()
    frames = [picture(120, 180, 20), picture(300, 200, 90), picture(64, 96, 8)]
    together = model.batch(frames, "panoptic")
    assert model.session.batches == [3]  # type: ignore[attr-defined]
    for frame, result in zip(frames, together, strict=True):
        alone: Any = model(frame, "panoptic")
        assert result.map.shape == frame.shape[:2]  # type: ignore[union-attr]
        np.testing.assert_array_equal(result.map, alone.map)  # type: ignore[union-attr]


def test_the_first_task_of_the_model_is_the_default() -> None:
    assert isinstance(segmenter(Thresholds(tasks=("semantic", "panoptic")))(picture()), Semantic)


def test_a_task_the_model_was_not_trained_for() -> None:
    with pytest.raises(InputError, match="trained for semantic, not for panoptic"):
        segmenter(Thresholds(tasks=("semantic",)))(picture(), "panoptic")


def test_thresholds_can_be_replaced() -> None:
    strict = dataclasses.replace(MANIFEST.thresholds, object_mask=0.9999)
    assert isinstance(result := segmenter(strict)(picture()), Panoptic)
    assert result.segments == ()


def test_timings_are_of_every_stage() -> None:
    _, timings = segmenter().timed([picture()])
    assert min(timings.preprocess, timings.inference, timings.postprocess) > 0
    assert timings.total == timings.preprocess + timings.inference + timings.postprocess


def test_leaving_the_context_closes_the_session() -> None:
    with segmenter() as model:
        assert not model.session.closed  # type: ignore[attr-defined]
    assert model.session.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((0, 10, 3), np.uint8),
        np.zeros((10, 0, 3), np.uint8),
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((10, 10, 3), np.uint16),
    ],
    ids=["no rows", "no columns", "grey", "alpha", "float", "16 bit"],
)
def test_what_is_not_a_frame(frame: np.ndarray) -> None:
    with pytest.raises(InputError):
        segmenter()(frame)


def test_an_empty_batch() -> None:
    with pytest.raises(InputError, match="empty batch"):
        segmenter().batch([])


def test_results_come_in_the_order_of_the_frames() -> None:
    model = segmenter()
    frames = [picture(car=column) for column in (10, 60, 110)]
    expected = [model(frame) for frame in frames]
    for frame, other in zip(frames, expected, strict=True):
        model.submit([frame])
        assert model.pending == 1
        (result,), timings = model.collect()
        assert model.pending == 0
        np.testing.assert_array_equal(result.map, other.map)  # type: ignore[union-attr]
        assert list(timings.stages) == ["preprocess", "inference", "postprocess"]


def test_no_more_than_the_depth_is_in_flight() -> None:
    model = segmenter()
    with pytest.raises(InputError, match="no batch is pending"):
        model.collect()
    assert model.depth == 1
    model.submit([picture()], "semantic")
    with pytest.raises(InputError, match="batches pending: 1, as many as fit"):
        model.submit([picture()])
    with pytest.raises(InputError, match="batches pending: 1; collect"):
        model(picture())
    (result,), _ = model.collect()
    assert isinstance(result, Semantic)


def test_what_fails_is_not_pending() -> None:
    model = segmenter()
    for frames in ([], [np.zeros((4, 4), np.uint8)]):
        with pytest.raises(InputError):
            model.submit(frames)
    assert model.pending == 0
    assert isinstance(model(picture()), Panoptic)
