"""The compiled post-processing, task by task, against numpy's and stored outputs of the official code: the host
library, and the source of the CUDA kernels run on the CPU."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.native import Library
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
from proscale_deploy.runtime.compiled.mask_kernels import HostMasks
from proscale_deploy.runtime.postprocess import postprocess
from proscale_deploy.runtime.taps import mask_plan
from support.emulated_masks import EmulatedMasks
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
ODD = SMALL["odd sizes"]
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


@pytest.mark.parametrize("limit", ["MOST_QUERIES", "MOST_CLASSES", "MOST_PIXELS"])
@pytest.mark.parametrize("task", TASKS)
def test_what_is_too_much_for_it_is_left_to_numpy(
    library: Library, task: Task, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, classes = make_scene("noise", ODD)
    monkeypatch.setattr(mask_kernels, limit, 9)
    with pytest.raises(InputError):
        HostMasks(library, mask_plan((32, 40), ODD), raw.mask_logits).semantic(np.ones((10, 12), np.float32))
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
