"""The compiled post-processing against numpy's and stored outputs of the official code: on the CPU, and the source of
the CUDA kernels run on the CPU."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError, PluginError
from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.types import (
    ClassInfo,
    Instances,
    Panoptic,
    Placement,
    RawOutput,
    Result,
    Semantic,
    Task,
    Thresholds,
)
from proscale_deploy.runtime.compiled import compiled_postprocess as compiled
from proscale_deploy.runtime.compiled import mask_kernels
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
from proscale_deploy.runtime.postprocess import postprocess
from proscale_deploy.runtime.taps import mask_plan
from proscale_deploy.runtime.tiles import tile_grid
from support.emulated_masks import EmulatedMasks
from support.emulator import Sanitizer
from support.sanitized import run_sanitized
from support.scenes import typical_scene

REFERENCE = Path(__file__).parents[1] / "reference" / "postprocess"
HOST, EMULATED = "host", "emulated"
TASKS: tuple[Task, ...] = ("panoptic", "instance", "semantic")
CONFIDENT = Thresholds(tasks=("instance",))
ANY_QUERY = dataclasses.replace(CONFIDENT, object_mask=0.0, overlap=0.02, max_instances=40)
SCORES_FIRST = dataclasses.replace(CONFIDENT, resize_masks_first=False)

SMALL = {
    "enlarged": Placement((83, 95), (32, 37), (32, 64)),
    "enlarged much": Placement((77, 41), (9, 5), (32, 32)),
    "shrunk much": Placement((23, 31), (200, 266), (224, 288)),
    "frame as in the network": Placement((96, 64), (96, 64), (96, 64)),
    "one pixel": Placement((1, 1), (64, 64), (64, 96)),
    "a row": Placement((1, 300), (1, 150), (32, 160)),
    "a column": Placement((133, 2), (128, 1), (128, 32)),
    "odd sizes": Placement((97, 113), (127, 149), (128, 160)),
}
LARGE = {
    "full HD": Placement((1080, 1920), (750, 1333), (800, 1344)),
    "enlarged": Placement((501, 640), (160, 205), (160, 224)),
}


def make_classes(count: int) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(f"class {n}", n < count // 2, (n, 0, 0)) for n in range(count))


def make_scene(kind: str, placement: Placement, seed: int = 0) -> tuple[RawOutput, tuple[ClassInfo, ...]]:
    mask_hw = placement.padded_hw[0] // 4, placement.padded_hw[1] // 4
    if kind == "typical":
        return typical_scene(mask_hw, queries=40, classes=30, found=8, seed=seed), make_classes(30)
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (12, 11)).astype(np.float32)
    return RawOutput(logits, rng.normal(0, 4, (12, *mask_hw)).astype(np.float32)), make_classes(10)


@pytest.fixture(scope="module")
def library(host_library: Path) -> Library:
    return Library(host_library)


Compiled = Callable[..., Result]


@pytest.fixture(params=[HOST, EMULATED])
def run(request: pytest.FixtureRequest, library: Library, monkeypatch: pytest.MonkeyPatch) -> Compiled:
    """``compiled_postprocess``, on the host library or with the kernels."""
    if request.param == EMULATED:
        monkeypatch.setattr(compiled, "HostMasks", lambda _, plan, masks: EmulatedMasks(plan, masks))
    return lambda *arguments: compiled.compiled_postprocess(library, *arguments)


def assert_same(found: Result, expected: Result, allowed: int = 0) -> None:
    """Up to ``allowed`` pixels that differ."""
    assert type(found) is type(expected)
    if isinstance(found, Instances) and isinstance(expected, Instances):
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=2e-7)
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        differing = sum(np.count_nonzero(a != b) for a, b in zip(found.crops, expected.crops, strict=True))
        assert all(crop.dtype == np.bool_ and crop.flags.c_contiguous for crop in found.crops)
    else:
        assert found.map.dtype == np.int32
        differing = np.count_nonzero(found.map != expected.map)
    assert differing <= allowed
    if isinstance(found, Semantic) and isinstance(expected, Semantic):
        np.testing.assert_allclose(found.score, expected.score, rtol=0, atol=8e-5)
    if isinstance(found, Panoptic) and isinstance(expected, Panoptic) and not allowed:
        assert found.segments == expected.segments


RULES: dict[str, tuple[Task, Thresholds]] = {
    "panoptic": ("panoptic", CONFIDENT),
    "panoptic, all queries": ("panoptic", ANY_QUERY),
    "instances": ("instance", CONFIDENT),
    "semantic": ("semantic", CONFIDENT),
    "semantic, scores first": ("semantic", SCORES_FIRST),
}


@pytest.mark.parametrize("kind", ["typical", "noise"])
@pytest.mark.parametrize("placement", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize(("task", "thresholds"), RULES.values(), ids=RULES)
def test_it_is_what_numpy_makes(
    run: Compiled, kind: str, placement: Placement, task: Task, thresholds: Thresholds
) -> None:
    raw, classes = make_scene(kind, placement)
    arguments = raw, placement, classes, thresholds, task
    assert_same(run(*arguments), postprocess(*arguments))


@pytest.mark.parametrize("placement", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize(("task", "thresholds"), RULES.values(), ids=RULES)
def test_large_pictures(library: Library, placement: Placement, task: Task, thresholds: Thresholds) -> None:
    raw = typical_scene((placement.padded_hw[0] // 4, placement.padded_hw[1] // 4))
    arguments = raw, placement, make_classes(133), thresholds, task
    # Where two values tie to the last bits.
    assert_same(compiled.compiled_postprocess(library, *arguments), postprocess(*arguments), allowed=2)


@pytest.mark.parametrize("name", ["nothing_found", "typical", "upscaled"])
@pytest.mark.parametrize("task", TASKS)
def test_stored_outputs_of_the_official_code(library: Library, name: str, task: Task) -> None:
    with np.load(REFERENCE / f"{name}.npz") as file:
        golden = dict(file)
    sizes = [tuple(golden[f"{size}_size"].tolist()) for size in ("output", "resized", "padded")]
    placement = Placement(*sizes)
    raw = RawOutput(golden["pred_logits"].astype(np.float32), golden["pred_masks"].astype(np.float32))
    classes = tuple(ClassInfo(f"class {n}", n < 80, (n, 0, 0)) for n in range(133))
    found = compiled.compiled_postprocess(library, raw, placement, classes, Thresholds(), task)
    allowed = 5e-4 * sizes[0][0] * sizes[0][1]
    if isinstance(found, Instances):
        np.testing.assert_array_equal(found.classes, golden["instance_classes"])
        np.testing.assert_allclose(found.scores, golden["instance_scores"], rtol=0, atol=1e-4)
        for index, packed in enumerate(golden["instance_masks"]):
            mask = np.unpackbits(packed, count=sizes[0][0] * sizes[0][1]).reshape(sizes[0])
            assert np.count_nonzero(found.mask(index) != mask) <= allowed
    else:
        assert np.count_nonzero(found.map != golden[task]) <= allowed
    if isinstance(found, Panoptic):
        expected = json.loads(golden["segments"].tobytes())
        assert [s.class_id for s in found.segments] == [s["category_id"] for s in expected]


# --- masks alone -----------------------------------------------------------------------------------------------------

Masks = HostMasks | EmulatedMasks
MakeMasks = Callable[..., Masks]


@pytest.fixture(params=[HOST, EMULATED])
def make_masks(request: pytest.FixtureRequest, library: Library) -> MakeMasks:
    """From a plan and logits."""
    if request.param == HOST:
        return lambda plan, masks: HostMasks(library, plan, masks)
    return lambda plan, masks: EmulatedMasks(plan, masks)


ODD = SMALL["odd sizes"]
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


@pytest.mark.parametrize("placement", ["enlarged much", "odd sizes"])
@pytest.mark.parametrize(("seed", "sanitizer"), ORDERS)
def test_the_same_bits_for_any_order_of_threads(seed: int, sanitizer: Sanitizer, placement: str) -> None:
    """And sanitizers find nothing; logits are aligned to their elements only."""
    raw, _ = make_scene("noise", SMALL[placement])
    masks = raw.mask_logits.astype(np.float16)
    for masks_first in (True, False):
        plan = mask_plan(masks.shape[1:], SMALL[placement], masks_first)
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


SANITIZED = """
import numpy as np
from proscale_deploy.core.types import Placement
from proscale_deploy.runtime.compiled.mask_kernels import HostMasks
from proscale_deploy.runtime.taps import mask_plan
placements = [
    Placement((83, 95), (32, 37), (32, 64)), Placement((23, 31), (200, 266), (224, 288)),
    Placement((1, 1), (64, 64), (64, 96)), Placement((97, 113), (127, 149), (128, 160)),
]
rng = np.random.default_rng(0)
for placement in placements:
    for dtype in (np.float32, np.float16):
        height, width = placement.padded_hw
        masks = rng.normal(0, 50, (9, height // 4, width // 4)).astype(dtype)
        for first in (True, False):
            found = HostMasks(library, mask_plan(masks.shape[1:], placement, first), masks)
            found.semantic(rng.random((5, 9), np.float32))
        found = HostMasks(library, mask_plan(masks.shape[1:], placement), masks)
        codes, _ = found.panoptic(np.arange(9), np.ones(9, np.float32))
        found.relabel(codes, np.zeros((9, 2), np.int32))
        found.instances(np.arange(9))
        assert found.count_nonfinite() == 0
print("done")
"""


def test_sanitizers_find_nothing_in_the_host_library(build_library: Callable[..., Path]) -> None:
    path = build_library("sanitized", "proscale_host", "-DPROSCALE_CUDA=OFF", "-DPROSCALE_SANITIZE=address,undefined")
    done = run_sanitized(path, SANITIZED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


SHORT = """
import resource, sys
from pathlib import Path
import numpy as np
from proscale_deploy.core.errors import PluginError
from proscale_deploy.core.native import Library
from proscale_deploy.core.types import Placement
from proscale_deploy.runtime.compiled.mask_kernels import HostMasks
from proscale_deploy.runtime.taps import mask_plan
plan = mask_plan((8, 8), Placement((32, 32768), (32, 32), (32, 32)))
masks = HostMasks(Library(Path(sys.argv[1])), plan, np.zeros((2048, 8, 8), np.float32))
weights = np.ones((2048, 2048), np.float32)
masks.count_nonfinite()
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
calls = {"semantic": [weights], "instances": [np.arange(60)], "panoptic": [np.arange(2048), weights[0]]}
limit = taken + (16 << 20)  # 8 MiB are for the results
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name, arguments in calls.items():
    try:
        getattr(masks, name)(*arguments)
        print("done")
    except PluginError:
        print("too little")
"""


def test_memory_that_is_too_small_does_not_end_the_process(host_library: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SHORT, str(host_library)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "too little\ndone\ntoo little\n"), done.stderr


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


@pytest.mark.parametrize("limit", ["MOST_QUERIES", "MOST_CLASSES", "MOST_PIXELS"])
@pytest.mark.parametrize("task", TASKS)
def test_what_is_too_much_for_it_is_left_to_numpy(
    library: Library, task: Task, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, classes = make_scene("noise", ODD)
    monkeypatch.setattr(mask_kernels, limit, 9)
    with pytest.raises(InputError):
        HostMasks(library, ODD_PLAN, odd_masks(10)).semantic(np.ones((10, 10), np.float32))
    arguments = raw, ODD, classes, CONFIDENT, task
    assert_same(compiled.compiled_postprocess(library, *arguments), postprocess(*arguments))


@pytest.mark.parametrize("task", TASKS)
def test_logits_that_are_not_numbers(run: Compiled, task: Task) -> None:
    raw, classes = make_scene("noise", ODD)
    raw.mask_logits[3, 2, 1] = np.nan
    with pytest.raises(InputError, match="mask_logits hold 1 NaN or infinite"):
        run(raw, ODD, classes, Thresholds(), task)


def test_nothing_to_show(run: Compiled) -> None:
    raw, classes = make_scene("noise", ODD)
    raw.class_logits[:, -1] = 50
    found = run(raw, ODD, classes, Thresholds(), "panoptic")
    assert (found.segments, found.map.any(), found.map.shape) == ((), False, ODD.source_hw)
    stuff = tuple(dataclasses.replace(info, is_thing=False) for info in classes)
    none = run(raw, ODD, stuff, Thresholds(), "instance")
    assert (none.scores.shape, none.boxes.shape, none.crops) == ((0,), (0, 4), ())


def test_a_host_library_has_no_kernels_for_a_device(library: Library) -> None:
    masks = DeviceMasks(library, ODD_PLAN, DType.HALF, 9, logits=0, tables=0)
    with pytest.raises(PluginError, match="no function proscale_count_nonfinite_cuda"):
        masks.count_nonfinite(0, 0)
