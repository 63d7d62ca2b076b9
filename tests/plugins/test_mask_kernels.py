"""The functions of masks, pixel by pixel against numpy: the host library's, and the source of the CUDA kernels run on
the CPU."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError, PluginError
from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.types import Placement
from proscale_deploy.runtime.compiled.mask_kernels import (
    LEAST_PIXELS,
    MOST_CLASSES,
    MOST_PIXELS,
    MOST_QUERIES,
    STATS,
    DeviceMasks,
    HostMasks,
    crop,
    measure,
)
from proscale_deploy.runtime.logits import sigmoid
from proscale_deploy.runtime.taps import mask_plan
from proscale_deploy.runtime.tiles import tile_grid
from support.emulated_masks import EmulatedMasks
from support.emulator import Sanitizer

HOST, EMULATED = "host", "emulated"


@pytest.fixture(scope="module")
def library(host_library: Path) -> Library:
    return Library(host_library)


Masks = HostMasks | EmulatedMasks
MakeMasks = Callable[..., Masks]


@pytest.fixture(params=[HOST, EMULATED])
def make_masks(request: pytest.FixtureRequest, library: Library) -> MakeMasks:
    """From a plan and logits."""
    if request.param == HOST:
        return lambda plan, masks: HostMasks(library, plan, masks)
    return lambda plan, masks: EmulatedMasks(plan, masks)


ODD = Placement((97, 113), (127, 149), (128, 160))
ODD_PLAN = mask_plan((32, 40), ODD)


def odd_masks(queries: int = 9, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 4, (queries, 32, 40)).astype(np.float32)


def full_size(masks: NDArray[np.float32]) -> NDArray[np.float32]:
    grid = tile_grid(masks.shape[1:], ODD)
    logits = grid.logits(masks, np.arange(len(masks)), np.arange(len(grid)))
    return np.stack([grid.join(query) for query in logits])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_winners_and_counts_pixel_by_pixel(make_masks: MakeMasks, dtype: type) -> None:
    masks = odd_masks().astype(dtype)
    queries, scores = np.array([1, 2, 5, 8]), np.array([0.9, 0.95, 0.85, 1.0], np.float32)
    codes, counts = make_masks(ODD_PLAN, masks).panoptic(queries, scores)
    logits = full_size(masks[queries].astype(np.float32))
    winner = (scores[:, None, None] * sigmoid(logits)).argmax(axis=0)
    held = np.take_along_axis(logits, winner[None], 0)[0] >= 0
    np.testing.assert_array_equal(codes, 2 * winner + held)
    won = np.bincount(codes.ravel(), minlength=8).reshape(4, 2)
    np.testing.assert_array_equal(counts, np.column_stack([won, (logits >= 0).sum(axis=(1, 2))]))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_sums_of_classes_pixel_by_pixel(make_masks: MakeMasks, dtype: type) -> None:
    masks = odd_masks().astype(dtype)
    weights = np.random.default_rng(1).dirichlet(np.full(7, 0.3), 9).T.astype(np.float32)
    labels, scores = make_masks(ODD_PLAN, masks).semantic(weights)
    sums = np.tensordot(weights.astype(np.float64), sigmoid(full_size(masks.astype(np.float32))), 1)
    np.testing.assert_array_equal(labels, sums.argmax(axis=0))
    np.testing.assert_allclose(scores, sums.max(axis=0), rtol=0, atol=4e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_bitmaps_and_their_measures(make_masks: MakeMasks, dtype: type) -> None:
    masks = odd_masks().astype(dtype)
    masks[2], masks[3] = -5, 5
    queries = np.array([8, 2, 3, 0])  # in any order
    bitmaps, stats = make_masks(ODD_PLAN, masks).instances(queries)
    logits = full_size(masks[queries].astype(np.float32))
    pixels = np.unpackbits(bitmaps.view(np.uint8), axis=2, bitorder="little")
    np.testing.assert_array_equal(pixels[:, :, :113], logits > 0)
    assert not pixels[:, :, 113:].any()
    np.testing.assert_array_equal(stats["count"], (logits > 0).sum(axis=(1, 2)))
    quality, boxes = measure(stats, ODD.source_hw)
    assert boxes[1].tolist() == [0, 0, 0, 0]
    assert boxes[2].tolist() == [0, 0, 113, 97]
    sums = (sigmoid(logits) * (logits > 0)).sum(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(quality, sums / (stats["count"] + 1e-6), rtol=3e-7)


def test_crops_begin_and_end_anywhere() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (5, 96), np.uint8)
    rows = np.packbits(bits, axis=1, bitorder="little").view(np.uint32)
    for left in range(34):
        for right in (left, left + 1, left + 13, 95, 96):
            np.testing.assert_array_equal(crop(rows, (left, 0, right, 5)), bits[:, left:right])


def test_equals_go_to_the_first(make_masks: MakeMasks) -> None:
    plan = mask_plan((8, 8), Placement((32, 32), (32, 32), (32, 32)))
    masks = np.full((4, 8, 8), 30, np.float32)
    masks[2] = 40  # its sigmoid is 1 too
    codes, counts = make_masks(plan, masks).panoptic(np.arange(4), np.ones(4, np.float32))
    assert (codes == 1).all()
    assert counts.tolist() == [[0, 1024, 1024]] + 3 * [[0, 0, 1024]]
    labels, scores = make_masks(plan, masks).semantic(np.full((5, 4), 0.25, np.float32))
    assert (labels == 0).all()
    np.testing.assert_allclose(scores, 1, rtol=0, atol=4e-5)


def test_logits_beyond_the_range_of_exp(make_masks: MakeMasks) -> None:
    masks = 100 * odd_masks()
    codes, _ = make_masks(ODD_PLAN, masks).panoptic(np.arange(9), np.full(9, 0.9, np.float32))
    logits = full_size(masks)
    value = sigmoid(logits.max(axis=0))
    shown = value > 1e-30  # below, all are nothing
    held = logits.max(axis=0) >= 0
    np.testing.assert_array_equal(codes[shown] % 2, held[shown])
    saturated = (sigmoid(logits) == 1).argmax(axis=0)
    sure = (sigmoid(logits) == 1).any(axis=0)
    np.testing.assert_array_equal(codes[sure] // 2, saturated[sure])
    labels, scores = make_masks(ODD_PLAN, masks).semantic(np.eye(9, dtype=np.float32))
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(labels[sure], saturated[sure])


def test_a_class_wins_far_below_what_another_reaches_beside_it(make_masks: MakeMasks) -> None:
    masks = np.full((2, 32, 40), 9, np.float32)
    masks[0, :, 18:] = -12
    weights = np.array([[1, 0], [0, 0.1]], np.float32)
    labels, scores = make_masks(ODD_PLAN, masks).semantic(weights)
    sums = np.tensordot(weights, sigmoid(full_size(masks)), 1)
    assert 0.4 < labels.mean() < 0.6
    np.testing.assert_array_equal(labels, sums.argmax(axis=0))
    np.testing.assert_allclose(scores, sums.max(axis=0), rtol=0, atol=4e-5)


def test_winners_that_hang_on_less_than_the_tolerance(make_masks: MakeMasks) -> None:
    """Two classes score 1e-3 everywhere; which is ahead is settled by queries that add up to 2e-6 each."""
    rng = np.random.default_rng(0)
    masks = odd_masks(25)
    masks[0] = 9
    weights = np.zeros((2, 25), np.float32)
    weights[:, 0] = 1e-3
    weights[np.arange(24) % 2, np.arange(1, 25)] = rng.uniform(1e-6, 2e-6, 24)
    labels, _ = make_masks(ODD_PLAN, masks).semantic(weights)
    sums = np.tensordot(weights.astype(np.float64), 1 / (1 + np.exp(-full_size(masks).astype(np.float64))), 1)
    assert 0.3 < labels.mean() < 0.7
    clear = abs(sums[0] - sums[1]) > 2e-9  # FP32 sums of 1e-3 are no finer
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels[clear], sums.argmax(axis=0)[clear])


def test_sums_far_above_one(make_masks: MakeMasks) -> None:
    """All queries agree on two classes, and hardly on which is the better one."""
    masks = odd_masks(64) / 4 + 8
    weights = np.full((3, 64), 1, np.float32)
    weights[1] += np.random.default_rng(0).normal(0, 1e-3, 64).astype(np.float32)
    labels, scores = make_masks(ODD_PLAN, masks).semantic(weights)
    sums = np.tensordot(weights.astype(np.float64), 1 / (1 + np.exp(-full_size(masks).astype(np.float64))), 1)
    np.testing.assert_allclose(scores, sums.max(axis=0), rtol=1e-6, atol=4e-5)
    assert (np.take_along_axis(sums, labels[None], 0)[0] >= sums.max(axis=0) - 1e-4).all()


def test_as_many_as_it_takes(make_masks: MakeMasks) -> None:
    plan = mask_plan((8, 8), Placement((30, 31), (32, 32), (32, 32)))
    masks = np.random.default_rng(0).normal(0, 3, (MOST_QUERIES, 8, 8)).astype(np.float32)
    codes, counts = make_masks(plan, masks).panoptic(np.arange(MOST_QUERIES), np.ones(MOST_QUERIES, np.float32))
    assert counts[:, :2].sum() == codes.size
    assert codes.min() >= 0
    assert codes.max() < 2 * MOST_QUERIES
    weights = np.zeros((MOST_CLASSES, MOST_QUERIES), np.float32)
    weights[-1, -1], weights[-2, -1] = 1, 0.5
    labels, _ = make_masks(plan, masks).semantic(weights)
    assert (labels == MOST_CLASSES - 1).all()
    _, stats = make_masks(plan, masks[:40]).instances(np.arange(40))
    assert (stats["count"] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_not_finite_is_counted(make_masks: MakeMasks, dtype: type) -> None:
    masks = odd_masks(3).astype(dtype)
    assert make_masks(ODD_PLAN, masks).count_nonfinite() == 0
    masks.flat[[0, 7, 1000, 3839]] = np.nan, np.inf, -np.inf, -np.nan
    masks.flat[5] = np.finfo(dtype).max
    assert make_masks(ODD_PLAN, masks).count_nonfinite() == 4


def test_codes_become_labels(make_masks: MakeMasks) -> None:
    codes = np.random.default_rng(0).integers(0, 18, ODD.source_hw, np.int16)
    ids = np.arange(100, 118, dtype=np.int32).reshape(9, 2)
    np.testing.assert_array_equal(make_masks(ODD_PLAN, odd_masks()).relabel(codes, ids), ids.ravel()[codes])


# --- the kernels' behaviour ------------------------------------------------------------------------------------------


ORDERS = [(0, "none"), (1, "none"), (3, "none"), (3, "address"), (3, "thread")]


@pytest.mark.parametrize("placement", [Placement((77, 41), (9, 5), (32, 32)), ODD], ids=["enlarged much", "odd sizes"])
@pytest.mark.parametrize(("seed", "sanitizer"), ORDERS)
def test_the_same_bits_for_any_order_of_threads(seed: int, sanitizer: Sanitizer, placement: Placement) -> None:
    """And sanitizers find nothing; logits are aligned to their elements only."""
    mask_hw = placement.padded_hw[0] // 4, placement.padded_hw[1] // 4
    masks = np.random.default_rng(1).normal(0, 4, (12, *mask_hw)).astype(np.float16)
    for masks_first in (True, False):
        plan = mask_plan(mask_hw, placement, masks_first)
        weights = np.random.default_rng(0).dirichlet(np.full(6, 0.3), len(masks)).T.astype(np.float32)
        usual = EmulatedMasks(plan, masks)
        other = EmulatedMasks(plan, masks, seed=seed, sanitizer=sanitizer, offset=2)
        for a, b in zip(usual.semantic(weights), other.semantic(weights), strict=True):
            np.testing.assert_array_equal(a, b)
        if not masks_first:
            continue
        queries, scores = np.array([0, 3, 4, 11]), np.linspace(0.8, 1, 4, dtype=np.float32)
        for a, b in zip(usual.panoptic(queries, scores), other.panoptic(queries, scores), strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(usual.instances(queries), other.instances(queries), strict=True):
            np.testing.assert_array_equal(a, b)
        assert other.count_nonfinite() == 0


def test_nothing_is_done_with_wrong_arguments() -> None:
    scores_first = mask_plan((32, 40), ODD, False)
    with pytest.raises(RuntimeError, match="CUDA error 1"):
        EmulatedMasks(scores_first, odd_masks()).panoptic(np.arange(3), np.ones(3, np.float32))
    with pytest.raises(RuntimeError, match="CUDA error 1"):
        EmulatedMasks(scores_first, odd_masks()).instances(np.arange(3))
    with pytest.raises(RuntimeError, match="CUDA error 1"):
        EmulatedMasks(ODD_PLAN, odd_masks()).instances(np.arange(0))
    with pytest.raises(RuntimeError, match="CUDA error 1"):
        EmulatedMasks(ODD_PLAN, odd_masks()).semantic(np.ones((MOST_CLASSES + 1, 9), np.float32))
    with pytest.raises(RuntimeError, match="CUDA error 1"):
        EmulatedMasks(ODD_PLAN, odd_masks()[:, :2]).semantic(np.ones((3, 9), np.float32))


# --- arguments -------------------------------------------------------------------------------------------------------


def test_sizes_are_as_in_the_header() -> None:
    header = (Path(__file__).parents[2] / "plugins/include/proscale/mask_api.h").read_text()
    limits = {name: int(value) for name, value in re.findall(r"PROSCALE_(\w+) = (\d+)", header)}
    assert limits == {
        "MOST_QUERIES": MOST_QUERIES,
        "MOST_CLASSES": MOST_CLASSES,
        "LEAST_PIXELS": LEAST_PIXELS,
        "MOST_PIXELS": MOST_PIXELS,
    }
    assert STATS.itemsize == 32


def test_arrays_that_do_not_fit(library: Library) -> None:
    with pytest.raises(InputError, match=r"expected masks \(queries, 32, 40\)"):
        HostMasks(library, ODD_PLAN, odd_masks()[:, 1:])
    with pytest.raises(InputError, match="float64"):
        HostMasks(library, ODD_PLAN, odd_masks().astype(np.float64))
    with pytest.raises(InputError, match="up to 2048 queries"):
        HostMasks(library, ODD_PLAN, np.zeros((2049, 32, 40), np.float32))
    with pytest.raises(
        InputError, match="3 to 32768 pixels along an edge; found 9 masks of 2x40 for an output of 97x113"
    ):
        HostMasks(library, dataclasses.replace(ODD_PLAN, mask_hw=(2, 40)), odd_masks()[:, :2])
    masks = HostMasks(library, ODD_PLAN, odd_masks())
    with pytest.raises(InputError, match="queries below 9"):
        masks.panoptic(np.array([2, 9]), np.ones(2, np.float32))
    with pytest.raises(InputError, match="one or more"):
        masks.instances(np.array([], int))
    with pytest.raises(InputError, match=r"expected weights \(classes, 9\)"):
        masks.semantic(np.ones((4, 8), np.float32))
    with pytest.raises(InputError, match="up to 2048 classes"):
        masks.semantic(np.ones((2049, 9), np.float32))


def test_a_host_library_has_no_kernels_for_a_device(library: Library) -> None:
    masks = DeviceMasks(library, ODD_PLAN, DType.HALF, 9, logits=0, tables=0)
    with pytest.raises(PluginError, match="no function proscale_count_nonfinite_cuda"):
        masks.count_nonfinite(0, 0)
