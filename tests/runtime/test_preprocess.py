"""Preprocessing against Pillow and torch used directly, and against the filter's definition in double precision."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import InputSpec, Size
from proscale_deploy.runtime.preprocess import place, preprocess

COCO = InputSpec(
    height=1344,
    width=1344,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    channels="RGB",
    shortest_edge=800,
    longest_edge=1333,
)
SMALL = dataclasses.replace(COCO, height=96, width=160, shortest_edge=80, longest_edge=133)
BYTES = dataclasses.replace(SMALL, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), channels="BGR")


def make_frame(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((427, 640), (800, 1199)),
        ((640, 427), (1199, 800)),
        ((1080, 1920), (750, 1333)),
        ((1920, 1080), (1333, 750)),
        ((333, 500), (800, 1201)),
        ((600, 1000), (800, 1333)),
        ((799, 1333), (799, 1333)),
        ((2160, 3840), (750, 1333)),
        ((100, 1000), (133, 1333)),
        ((3, 2000), (2, 1333)),
        ((1, 1), (800, 800)),
        # detectron2 would round these to nothing
        ((5000, 1), (1333, 1)),
        ((1, 5000), (1, 1333)),
    ],
)
def test_size_by_the_rule_of_detectron2(source: Size, expected: Size) -> None:
    """Expected sizes were computed by ``ResizeShortestEdge.get_output_shape(..., 800, 1333)`` itself."""
    placement = place(source, COCO)
    assert (placement.source_hw, placement.resized_hw, placement.padded_hw) == (source, expected, (1344, 1344))


@pytest.mark.parametrize(
    ("source", "network", "expected"),
    [
        ((1080, 1920), (640, 640), (360, 640)),
        ((1920, 1080), (800, 1344), (800, 450)),
        ((480, 640), (800, 800), (600, 800)),
        ((500, 500), (320, 1344), (320, 320)),
        ((5000, 1), (320, 320), (320, 1)),
        # one edge of the rule's 800x1067 fits, the other not
        ((480, 640), (800, 1056), (792, 1056)),
    ],
)
def test_largest_size_that_fits_where_the_rule_does_not(source: Size, network: Size, expected: Size) -> None:
    spec = dataclasses.replace(COCO, height=network[0], width=network[1])
    assert place(source, spec).resized_hw == expected


def test_shortest_edge_zero_switches_resizing_off() -> None:
    spec = dataclasses.replace(SMALL, shortest_edge=0)
    assert place((50, 71), spec).resized_hw == (50, 71)
    assert place((192, 160), spec).resized_hw == (96, 80)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("source", [(240, 400), (80, 133), (31, 47), (300, 120), (1, 1), (1, 90), (700, 2), (96, 160)])
def test_equals_pillow_then_torch(source: Size, channels: str) -> None:
    spec = dataclasses.replace(SMALL, channels=channels)
    frame = make_frame(*source)
    found, placement = preprocess(frame, spec)

    height, width = placement.resized_hw
    image = Image.fromarray(np.ascontiguousarray(frame[..., ::-1]))
    for size in ((width, source[0]), (width, height)):  # the order of all versions of Pillow but the newest
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = np.array(image)
    tensor = torch.from_numpy(pixels if channels == "RGB" else pixels[..., ::-1].copy()).permute(2, 0, 1)
    tensor = (tensor - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    expected = torch.nn.functional.pad(tensor, (0, spec.width - width, 0, spec.height - height))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.numpy())


def triangle_filter(size: int, new_size: int) -> NDArray[np.float64]:
    """(new_size, size): normalised triangles, two output samples wide, or two input samples where the image grows."""
    scale = size / new_size
    centre = (np.arange(new_size) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centre[:, None]) / max(scale, 1)
    weight = np.maximum(1 - distance, 0)
    return weight / weight.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("source", [(240, 400), (31, 47), (80, 999), (501, 130)])
def test_resize_is_the_antialiased_triangle_filter(source: Size) -> None:
    frame = make_frame(*source)
    found, placement = preprocess(frame, BYTES)
    height, width = placement.resized_hw
    rows, columns = triangle_filter(source[0], height), triangle_filter(source[1], width)
    expected = np.einsum("yh,hwc,xw->cyx", rows, frame.astype(np.float64), columns, optimize=True)
    # Pillow rounds to bytes after each of its two passes.
    assert np.abs(found[:, :height, :width] - expected).max() <= 1


def test_frame_of_the_right_size_is_left_alone() -> None:
    frame = make_frame(80, 133)
    found, placement = preprocess(frame, BYTES)
    assert placement.resized_hw == placement.source_hw == (80, 133)
    np.testing.assert_array_equal(found[:, :80, :133], frame.transpose(2, 0, 1))
    assert not found[:, 80:].any()
    assert not found[:, :, 133:].any()


@pytest.mark.parametrize("source", [(240, 400), (300, 120), (80, 133)])
def test_writes_every_element_of_a_batch_row(source: Size) -> None:
    frame = make_frame(*source)
    batch = np.full((3, 3, SMALL.height, SMALL.width), np.nan, np.float32)
    row, placement = preprocess(frame, SMALL, out=batch[1])
    alone, expected_placement = preprocess(frame, SMALL)
    assert np.shares_memory(row, batch)
    assert placement == expected_placement
    np.testing.assert_array_equal(batch[1], alone)
    assert np.isnan(batch[[0, 2]]).all()


def test_frames_that_are_views() -> None:
    frame = make_frame(120, 200)
    for view in (frame[::-1, ::-1], frame[10:90, 20:180], frame[::2, ::3], frame[..., ::-1], frame[10:90, 20:153]):
        np.testing.assert_array_equal(preprocess(view, SMALL)[0], preprocess(view.copy(), SMALL)[0])


@pytest.mark.parametrize(
    ("frame", "advice"),
    [
        (np.zeros((4, 5), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((4, 5, 1), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((4, 5, 4), np.uint8), "COLOR_BGRA2BGR"),
        (np.zeros((4, 5, 3), np.uint16), "frame >> 8"),
        (np.zeros((4, 5, 3), np.float32), "astype"),
        (np.zeros((4, 5, 2), np.uint8), "expected"),
        (np.zeros((1, 4, 5, 3), np.uint8), "expected"),
        (np.zeros((0, 5, 3), np.uint8), "at least 1x1"),
        (np.zeros((4, 0, 3), np.uint8), "at least 1x1"),
        (None, "cv2.imread gives None"),
        ([[[0, 0, 0]]], "numpy.asarray"),
        (Image.new("RGB", (5, 4)), "numpy.asarray"),
    ],
)
def test_frames_that_cannot_be_used(frame: NDArray[np.uint8], advice: str) -> None:
    with pytest.raises(InputError, match=advice) as error:
        preprocess(frame, SMALL)
    assert "expected" in str(error.value)


@pytest.mark.parametrize("out", [np.zeros((3, 96, 161), np.float32), np.zeros((3, 96, 160), np.float64)])
def test_out_of_another_shape_or_dtype(out: NDArray[np.float32]) -> None:
    with pytest.raises(InputError, match="expected out"):
        preprocess(make_frame(4, 5), SMALL, out=out)
