"""What tests give to sessions of engines, and what must come back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import Instances, Panoptic, Result, Semantic, Task, Thresholds
from proscale_deploy.runtime.segmenter import Segmenter
from support.color_model import HEIGHT, WIDTH, ColorSession


def images(batch: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """For the colour model."""
    return np.random.default_rng(seed).uniform(0, 255, (batch, 3, HEIGHT, WIDTH)).astype(np.float32)


def check(session: Any, given: NDArray[np.float32], tolerance: float = 1e-3) -> None:
    """A session of the colour model gives its outputs."""
    outputs, expected = session.run(given), ColorSession().run(given)
    assert len(outputs) == len(given)
    for output, other in zip(outputs, expected, strict=True):
        assert output.class_logits.dtype == output.mask_logits.dtype == np.float32
        np.testing.assert_allclose(output.class_logits, other.class_logits)
        np.testing.assert_allclose(output.mask_logits, other.mask_logits, rtol=tolerance, atol=tolerance)


def on_cpu(frame: NDArray[np.uint8], task: Task, thresholds: Thresholds | None = None) -> Result:
    """What the colour model makes of a frame without a GPU."""
    return Segmenter(ColorSession(), thresholds)(frame, task)  # type: ignore[arg-type]


def check_result(found: Result, expected: Result, tolerance: float = 1e-4, share: float = 0) -> None:
    """Two results are equal: scores up to a tolerance, pixels but for a share of them, where the best two values are
    equal up to rounding. With such a share, instances are those above 0.5, one of each class."""
    assert type(found) is type(expected)
    if isinstance(found, Instances) and isinstance(expected, Instances):
        assert found.size == expected.size
        np.testing.assert_allclose(found.scores, expected.scores, rtol=tolerance, atol=tolerance)
        if share:
            ours, theirs = _masks_by_class(found), _masks_by_class(expected)
            assert ours.keys() == theirs.keys()
            assert all(np.mean(ours[label] != theirs[label]) <= share for label in ours)
            return
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        for crop, other in zip(found.crops, expected.crops, strict=True):
            np.testing.assert_array_equal(crop, other)
        return
    assert isinstance(found, Panoptic | Semantic)
    assert found.map.dtype == np.int32
    assert found.map.flags.owndata
    if isinstance(found, Panoptic) and isinstance(expected, Panoptic):
        assert np.mean(found.map != expected.map) <= share
        for one, other in zip(found.segments, expected.segments, strict=True):
            assert (one.id, one.class_id, one.is_thing) == (other.id, other.class_id, other.is_thing)
            assert one.area == np.count_nonzero(found.map == one.id)
            assert abs(one.score - other.score) <= tolerance
    elif isinstance(found, Semantic) and isinstance(expected, Semantic):
        # Classes tie where their masks are all but 0 or 1.
        assert np.mean(found.map != expected.map) < 0.01
        np.testing.assert_allclose(found.score, expected.score, atol=tolerance)


def _masks_by_class(instances: Instances) -> dict[int, NDArray[np.bool_]]:
    likely = np.flatnonzero(instances.scores > 0.5).tolist()
    return {int(instances.classes[index]): instances.mask(index) for index in likely}


def noise(height: int = 90, width: int = 131, seed: int = 0) -> NDArray[np.uint8]:
    """A frame of 6 x 9 patches of any colour."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return np.repeat(np.repeat(coarse, -(-height // 6), 0), -(-width // 9), 1)[:height, :width].copy()
