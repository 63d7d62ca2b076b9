"""What the central types refuse, and how instances become maps."""

import dataclasses

import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import InputSpec, Instances, Placement, RawOutput, Size, Thresholds

SPEC = InputSpec(64, 96, (1.0, 2.0, 3.0), (1.0, 1.0, 1.0), "RGB", 0, 96)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 0}, "positive multiples of 32, found 0x96"),
        ({"width": -32}, "positive multiples of 32, found 64x-32"),
        ({"width": 97}, "positive multiples of 32, found 64x97"),
        ({"size_divisibility": 0}, "positive multiples of 0"),
        ({"size_divisibility": 64}, "positive multiples of 64"),
        ({"mean": (1.0,)}, "must be 3 numbers"),
        ({"std": (1.0, 1.0)}, "must be 3 numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "PIXEL_STD positive"),
        ({"std": (1.0, 1.0, float("nan"))}, "PIXEL_STD positive"),
        ({"channels": "rgb"}, "RGB or BGR, found 'rgb'"),
        ({"shortest_edge": -1}, "MIN_SIZE_TEST must be at least 0"),
        ({"longest_edge": 0}, "MAX_SIZE_TEST at least 1"),
    ],
)
def test_network_inputs_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SPEC, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object_mask": 80}, "from 0 to 1"),
        ({"overlap": -0.1}, "from 0 to 1"),
        ({"overlap": float("nan")}, "from 0 to 1"),
        ({"max_instances": 0}, "max_instances at least 1"),
        ({"tasks": ()}, "expected tasks out of panoptic, instance, semantic"),
        ({"tasks": ("instances",)}, "expected tasks out of panoptic, instance, semantic"),
    ],
)
def test_thresholds_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Thresholds(), **changes)


@pytest.mark.parametrize(
    ("source", "resized", "padded"),
    [
        ((0, 5), (32, 32), (32, 32)),
        ((5, 5), (0, 32), (32, 32)),
        ((5, 5), (33, 32), (32, 32)),
        ((5, 5), (32, 40), (64, 32)),
    ],
)
def test_placements_that_cannot_be(source: Size, resized: Size, padded: Size) -> None:
    with pytest.raises(InputError, match="inside the padded one"):
        Placement(source, resized, padded)


@pytest.mark.parametrize(
    ("classes", "masks"),
    [
        (np.zeros((4, 3), np.float32), np.zeros((5, 2, 2), np.float32)),
        (np.zeros((1, 4, 3), np.float32), np.zeros((1, 4, 2, 2), np.float32)),
        (np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)),
        (np.zeros((0, 3), np.float32), np.zeros((0, 2, 2), np.float32)),
        (np.zeros((4, 1), np.float32), np.zeros((4, 2, 2), np.float32)),
        (np.zeros((4, 3), np.float32), np.zeros((4, 0, 2), np.float32)),
        (np.zeros((4, 3), np.float32), np.zeros((4, 2, 2), np.float16)),
        (np.zeros((4, 3), np.float64), np.zeros((4, 2, 2), np.float32)),
    ],
)
def test_outputs_that_cannot_be(classes: np.ndarray, masks: np.ndarray) -> None:
    with pytest.raises(InputError) as caught:
        RawOutput(classes, masks)
    assert f"found {classes.shape} {classes.dtype} and {masks.shape} {masks.dtype}" in str(caught.value)


def test_instances_as_maps() -> None:
    corner = np.array([[True, False], [True, True]])
    found = Instances(
        (3, 4),
        np.array([0.9, 0.8, 0.7], np.float32),
        np.array([5, 6, 7]),
        np.array([[1, 0, 3, 2], [0, 1, 4, 2], [0, 0, 0, 0]], np.int32),
        (corner, np.ones((1, 4), np.bool_), np.zeros((0, 0), np.bool_)),
    )
    assert found.mask(0).astype(int).tolist() == [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert not found.mask(2).any()
    # The first lies over the second: it has the better score.
    assert found.id_map(3).tolist() == [[0, 1, 0, 0], [2, 1, 1, 2], [0, 0, 0, 0]]
    assert found.id_map(1).tolist() == [[0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
