"""Post-processing against stored outputs of the official code and against its form on full-size torch tensors."""

import dataclasses
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Placement, RawOutput, Semantic, Size, Thresholds
from proscale_deploy.runtime.postprocess import instances, panoptic, postprocess, semantic
from proscale_deploy.runtime.taps import MaskPlan, mask_plan
from proscale_deploy.runtime.tiles import tile_grid
from support import official_postprocess as official
from support.scenes import typical_scene

GOLDEN = sorted((Path(__file__).parents[1] / "reference" / "postprocess").glob("*.npz"))
DIFFERING_PIXELS = 5e-4
"""Share of pixels that float ties may move."""

PLACEMENTS = {
    "shrunk to the frame": Placement((120, 160), (200, 266), (224, 288)),
    "enlarged": Placement((301, 400), (160, 213), (160, 224)),
    "enlarged much": Placement((390, 571), (64, 94), (64, 96)),
    "shrunk much": Placement((23, 31), (200, 266), (224, 288)),
    "frame as in the network, padded": Placement((157, 203), (157, 203), (160, 224)),
    "frame as in the network": Placement((96, 160), (96, 160), (96, 160)),
    "one pixel": Placement((1, 1), (64, 64), (64, 96)),
    "a row": Placement((1, 300), (1, 150), (32, 160)),
    "a column": Placement((333, 2), (128, 1), (128, 32)),
    "odd sizes": Placement((97, 113), (127, 149), (128, 160)),
}


def make_classes(count: int, things: int) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(f"class {n}", n < things, (n, 0, 0)) for n in range(count))


COCO = make_classes(133, 80)


def noise_scene(mask_hw: Size, queries: int, classes: int, seed: int) -> RawOutput:
    """Nothing smooth about it: every tile is contested."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 5, (queries, classes + 1)).astype(np.float32)
    return RawOutput(logits, rng.normal(0, 4, (queries, *mask_hw)).astype(np.float32))


def make_scene(kind: str, placement: Placement, seed: int = 0) -> tuple[RawOutput, tuple[ClassInfo, ...]]:
    mask_hw = placement.padded_hw[0] // 4, placement.padded_hw[1] // 4
    if kind == "typical":
        return typical_scene(mask_hw, queries=60, classes=50, found=12, seed=seed), make_classes(50, 30)
    return noise_scene(mask_hw, 30, 20, seed), make_classes(20, 12)


def things_of(classes: tuple[ClassInfo, ...]) -> set[int]:
    return {n for n, info in enumerate(classes) if info.is_thing}


def tensors(raw: RawOutput) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(raw.class_logits), torch.from_numpy(raw.mask_logits)


def kinds_of(result: Panoptic) -> list[tuple[int, int, bool]]:
    return [(segment.id, segment.class_id, segment.is_thing) for segment in result.segments]


def assert_same_map(found: NDArray[np.int32], expected: NDArray[np.generic]) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.int32
    assert np.count_nonzero(found != expected) <= DIFFERING_PIXELS * expected.size


# --- stored outputs of the official code -----------------------------------------------------------------------------


def load_golden(path: Path) -> tuple[dict[str, NDArray[np.generic]], RawOutput, Placement]:
    with np.load(path) as stored:
        golden = dict(stored)
    source, resized, padded = (
        (int(golden[name][0]), int(golden[name][1])) for name in ("output_size", "resized_size", "padded_size")
    )
    raw = RawOutput(golden["pred_logits"].astype(np.float32), golden["pred_masks"].astype(np.float32))
    return golden, raw, Placement(source, resized, padded)


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> tuple[dict[str, NDArray[np.generic]], RawOutput, Placement]:
    return load_golden(request.param)


def test_golden_files_are_there() -> None:
    assert [path.stem for path in GOLDEN] == ["nothing_found", "typical", "upscaled"]


def test_panoptic_equals_golden(golden: tuple[dict[str, NDArray[np.generic]], RawOutput, Placement]) -> None:
    expected, raw, placement = golden
    found = postprocess(raw, placement, COCO, Thresholds(), "panoptic")
    assert isinstance(found, Panoptic)
    assert_same_map(found.map, expected["panoptic"])
    segments = json.loads(expected["segments"].tobytes())
    assert kinds_of(found) == [(s["id"], s["category_id"], s["isthing"]) for s in segments]


def test_instances_equal_golden(golden: tuple[dict[str, NDArray[np.generic]], RawOutput, Placement]) -> None:
    expected, raw, placement = golden
    found = postprocess(raw, placement, COCO, Thresholds(), "instance")
    assert isinstance(found, Instances)
    np.testing.assert_array_equal(found.classes, expected["instance_classes"])
    np.testing.assert_allclose(found.scores, expected["instance_scores"], rtol=0, atol=1e-4)
    pixels = placement.source_hw[0] * placement.source_hw[1]
    areas = np.array([np.count_nonzero(crop) for crop in found.crops])
    assert np.abs(areas - expected["instance_areas"]).max() <= DIFFERING_PIXELS * pixels
    for index, packed in enumerate(expected["instance_masks"]):
        mask = np.unpackbits(packed, count=pixels).reshape(placement.source_hw)
        assert np.count_nonzero(found.mask(index) != mask) <= DIFFERING_PIXELS * pixels


def test_semantic_equals_golden(golden: tuple[dict[str, NDArray[np.generic]], RawOutput, Placement]) -> None:
    expected, raw, placement = golden
    found = postprocess(raw, placement, COCO, Thresholds(), "semantic")
    assert isinstance(found, Semantic)
    assert_same_map(found.map, expected["semantic"])
    np.testing.assert_allclose(found.score[::4, ::4], expected["semantic_max"], rtol=0, atol=1e-4)


# --- the official form in torch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["typical", "noise"])
@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS.keys())
@pytest.mark.parametrize("object_mask", [0.8, 0.0], ids=["confident queries", "all queries"])
def test_panoptic_equals_official_form(placement: Placement, kind: str, object_mask: float) -> None:
    raw, classes = make_scene(kind, placement)
    thresholds = Thresholds(object_mask=object_mask, overlap=0.8 if kind == "typical" else 0.02)
    found = panoptic(raw, placement, classes, thresholds)
    expected, segments = official.panoptic(
        *tensors(raw), placement, things_of(classes), object_mask, thresholds.overlap
    )
    assert kinds_of(found) == segments
    assert_same_map(found.map, expected.numpy())
    assert [segment.area for segment in found.segments] == [
        np.count_nonzero(found.map == segment.id) for segment in found.segments
    ]


@pytest.mark.parametrize("kind", ["typical", "noise"])
@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS.keys())
@pytest.mark.parametrize("panoptic_model", [True, False])
def test_instances_equal_official_form(placement: Placement, kind: str, panoptic_model: bool) -> None:
    raw, classes = make_scene(kind, placement)
    thresholds = Thresholds(tasks=("panoptic", "instance") if panoptic_model else ("instance",), max_instances=70)
    found = instances(raw, placement, classes, thresholds)
    kept = things_of(classes) if panoptic_model else set(range(len(classes)))
    scores, labels, masks = official.instances(*tensors(raw), placement, kept, 70)

    np.testing.assert_allclose(found.scores, scores.numpy(), rtol=0, atol=1e-4)
    # Scores that agree to the last bits may change places, empty masks above all: they all score 0.
    apart = np.abs(np.diff(scores.numpy(), prepend=2, append=-1)) > 1e-6
    clear = np.flatnonzero(apart[:-1] & apart[1:])
    np.testing.assert_array_equal(found.classes[clear], labels.numpy()[clear])
    for index in clear:
        assert_same_map(found.mask(index).astype(np.int32), masks[index].numpy())
    for box, crop in zip(found.boxes.tolist(), found.crops, strict=True):
        assert crop.shape == (box[3] - box[1], box[2] - box[0])
        if crop.size:
            assert all(edge.any() for edge in (crop[0], crop[-1], crop[:, 0], crop[:, -1]))


@pytest.mark.parametrize("kind", ["typical", "noise"])
@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS.keys())
@pytest.mark.parametrize("resize_masks_first", [True, False], ids=["masks first", "scores first"])
def test_semantic_equals_official_form(placement: Placement, kind: str, resize_masks_first: bool) -> None:
    raw, classes = make_scene(kind, placement)
    found = semantic(raw, placement, classes, Thresholds(resize_masks_first=resize_masks_first))
    labels, scores = official.semantic(*tensors(raw), placement, resize_masks_first)
    assert_same_map(found.map, labels.numpy())
    np.testing.assert_allclose(found.score, scores.numpy(), rtol=0, atol=1e-4)


def test_semantic_winners_hang_on_less_than_the_tolerance() -> None:
    """Two classes score 1e-3 everywhere; which is ahead is settled by forty queries that add up to 2e-6 each."""
    placement = PLACEMENTS["enlarged"]
    rng = np.random.default_rng(0)
    masks = rng.normal(0, 4, (41, 40, 56)).astype(np.float32)
    masks[0] = 9
    share = np.full((41, 2), 1e-9)
    share[0] = 1e-3
    share[1:][np.arange(40), np.arange(40) % 2] = rng.uniform(1e-6, 2e-6, 40)
    raw = RawOutput(np.log(np.column_stack([share, 1 - share.sum(1)])).astype(np.float32), masks)
    labels, scores = official.semantic(*tensors(raw), placement)
    assert 0.3 < labels.float().mean() < 0.7
    found = semantic(raw, placement, make_classes(2, 1), Thresholds())
    assert_same_map(found.map, labels.numpy())
    np.testing.assert_allclose(found.score, scores.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS.keys())
def test_tiles_hold_the_official_logits_within_their_bounds(placement: Placement) -> None:
    raw, _ = make_scene("noise", placement)
    grid = tile_grid(raw.mask_logits.shape[1:], placement)
    every_tile = np.arange(len(grid))
    logits = grid.logits(raw.mask_logits, np.arange(len(raw.mask_logits)), every_tile)
    least, greatest = grid.bounds(raw.mask_logits)
    assert (logits >= least[..., None, None]).all()
    assert (logits <= greatest[..., None, None]).all()
    expected = official.full_size_logits(torch.from_numpy(raw.mask_logits), placement).numpy()
    np.testing.assert_allclose(np.stack([grid.join(query) for query in logits]), expected, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(grid.join(logits[3]), grid.join(grid.logits(raw.mask_logits, 3, every_tile)))


def samples_of(plan: MaskPlan, masks: NDArray[np.float32], row: int, column: int) -> NDArray[np.float32]:
    """What the tables make of masks (Q, h, w): one of the samples of every output pixel."""
    height = plan.output_hw[0]
    for axis, taps, number in ((1, plan.tables[:height], row), (2, plan.tables[height:], column)):
        weights = np.zeros((len(taps), masks.shape[axis]), np.float32)
        place = taps["first"][:, None] + np.arange(3)
        np.put_along_axis(weights, place, taps["weight"][:, number], axis=1)
        of_weight = taps["weight"].any(axis=1)
        for edge in (
            taps["first"],
            taps["first"] + of_weight.argmax(axis=1),
            taps["first"] - of_weight[:, ::-1].argmax(axis=1),
        ):
            assert (np.diff(edge) >= 0).all()
        masks = np.moveaxis(np.tensordot(weights, masks, (1, axis)), 0, axis)
    return masks


@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS.keys())
def test_tables_for_the_compiled_code_hold_the_official_resizes(placement: Placement) -> None:
    raw, _ = make_scene("noise", placement)
    masks = torch.from_numpy(raw.mask_logits)
    plan = mask_plan(raw.mask_logits.shape[1:], placement)
    expected = official.full_size_logits(masks, placement).numpy()
    np.testing.assert_allclose(samples_of(plan, raw.mask_logits, 0, 0), expected, rtol=0, atol=2e-5)
    assert plan.samples == 1

    plan = mask_plan(raw.mask_logits.shape[1:], placement, resize_masks_first=False)
    assert plan.samples == (1 if placement.resized_hw == placement.source_hw else 2)
    y, x = np.split(plan.tables["share"], [plan.output_hw[0]])
    shares = {0: (1 - y[:, None], 1 - x), 1: (y[:, None], x)}
    total = np.zeros((len(masks), *plan.output_hw))
    for row in range(2):
        for column in range(2):
            probability = 1 / (1 + np.exp(-samples_of(plan, raw.mask_logits, row, column).astype(np.float64)))
            total += shares[row][0] * shares[column][1] * probability
    expected = official.crop_and_resize(official.resize(masks, placement.padded_hw).sigmoid(), placement).numpy()
    np.testing.assert_allclose(total, expected, rtol=0, atol=2e-5)


def test_logits_beyond_the_range_of_exp() -> None:
    placement = PLACEMENTS["odd sizes"]
    raw, classes = make_scene("noise", placement)
    raw = RawOutput(raw.class_logits, raw.mask_logits * 100)
    expected, segments = official.panoptic(*tensors(raw), placement, things_of(classes), 0.8, 0.0)
    found = panoptic(raw, placement, classes, Thresholds(overlap=0.0))
    assert kinds_of(found) == segments
    assert_same_map(found.map, expected.numpy())
    labels, _ = official.semantic(*tensors(raw), placement)
    assert_same_map(semantic(raw, placement, classes, Thresholds()).map, labels.numpy())


# --- rules, one by one, on scenes made by hand -----------------------------------------------------------------------

SQUARE = Placement((64, 64), (64, 64), (64, 64))
STUFF, THING = 0, 1
TWO_CLASSES = (ClassInfo("grass", False, (0, 128, 0)), ClassInfo("sheep", True, (255, 255, 255)))


def scene(*queries: tuple[int | None, float, slice, float]) -> RawOutput:
    """Queries (class or None, its logit above the others, columns of the 16x16 mask that it holds, mask logit)."""
    class_logits = np.zeros((len(queries), 3), np.float32)
    mask_logits = np.empty((len(queries), 16, 16), np.float32)
    for index, (label, margin, columns, strength) in enumerate(queries):
        class_logits[index, 2 if label is None else label] = margin
        mask_logits[index] = -strength
        mask_logits[index, :, columns] = strength
    return RawOutput(class_logits, mask_logits)


LEFT, RIGHT, ALL = slice(0, 8), slice(8, 16), slice(0, 16)


def test_nothing_kept_gives_an_empty_map() -> None:
    raw = scene((None, 9, ALL, 5), (THING, 0.5, ALL, 5))
    found = panoptic(raw, SQUARE, TWO_CLASSES, Thresholds())
    assert found.segments == ()
    assert found.map.shape == (64, 64)
    assert not found.map.any()


def test_stuff_of_one_class_is_merged_and_things_are_not() -> None:
    quarter = [slice(4 * n, 4 * n + 4) for n in range(4)]
    raw = scene(
        (STUFF, 7, quarter[0], 9), (THING, 8, quarter[1], 9), (STUFF, 9, quarter[2], 9), (THING, 8, quarter[3], 9)
    )
    found = panoptic(raw, SQUARE, TWO_CLASSES, Thresholds())
    assert kinds_of(found) == [(1, STUFF, False), (2, THING, True), (3, THING, True)]
    assert [segment.area for segment in found.segments] == [2048, 1024, 1024]
    assert found.map[30, [0, 10, 20, 30, 40, 50, 63]].tolist() == [1, 1, 2, 2, 1, 3, 3]
    # the score of the merged segment is the better one: softmax of (9, 0, 0)
    assert found.segments[0].score == pytest.approx(np.exp(9) / (np.exp(9) + 2), abs=1e-6)


def test_equal_queries_go_to_the_first() -> None:
    raw = scene((THING, 9, ALL, 5), (THING, 9, ALL, 5))
    found = panoptic(raw, SQUARE, TWO_CLASSES, Thresholds())
    assert kinds_of(found) == [(1, THING, True)]
    assert (found.map == 1).all()
    # so saturated that class score and mask probability are exactly 1 for both, in spite of different logits
    raw = scene((STUFF, 40, ALL, 30), (THING, 50, ALL, 40))
    assert kinds_of(panoptic(raw, SQUARE, TWO_CLASSES, Thresholds())) == [(1, STUFF, False)]


def test_a_hidden_query_leaves_no_gap_in_the_ids() -> None:
    raw = scene((STUFF, 9, LEFT, 9), (THING, 4, LEFT, 3), (THING, 9, RIGHT, 9))
    found = panoptic(raw, SQUARE, TWO_CLASSES, Thresholds())
    assert kinds_of(found) == [(1, STUFF, False), (2, THING, True)]


def test_a_segment_mostly_covered_is_dropped_and_its_pixels_stay_empty() -> None:
    raw = scene((STUFF, 6, ALL, 3), (THING, 9, slice(0, 12), 9))
    found = panoptic(raw, SQUARE, TWO_CLASSES, Thresholds(overlap=0.8))
    assert kinds_of(found) == [(1, THING, True)]
    assert found.map[0, [0, 40, 63]].tolist() == [1, 1, 0]
    # the thing holds 48 columns of 64 and the stuff about a quarter of its own area
    assert len(panoptic(raw, SQUARE, TWO_CLASSES, Thresholds(overlap=0.2)).segments) == 2


def test_a_logit_of_zero_is_inside_a_panoptic_mask_and_outside_an_instance() -> None:
    raw = scene((THING, 9, ALL, 0))
    assert (panoptic(raw, SQUARE, TWO_CLASSES, Thresholds()).map == 1).all()
    partly = RawOutput(raw.class_logits, raw.mask_logits.copy())
    partly.mask_logits[:, :, 12:] = -5
    assert panoptic(partly, SQUARE, TWO_CLASSES, Thresholds()).map[0, [0, 45, 46, 63]].tolist() == [1, 1, 0, 0]
    found = instances(raw, SQUARE, TWO_CLASSES, Thresholds(max_instances=1))
    assert found.scores.tolist() == [0.0]
    assert found.boxes.tolist() == [[0, 0, 0, 0]]
    assert found.crops[0].shape == (0, 0)
    assert not found.mask(0).any()


def test_instances_of_a_panoptic_model_are_things_among_the_best_pairs() -> None:
    raw = scene((STUFF, 6, ALL, 5), (THING, 5, RIGHT, 5), (None, 9, LEFT, 5))
    found = instances(raw, SQUARE, TWO_CLASSES, Thresholds(max_instances=2))
    assert found.classes.tolist() == [THING]
    assert found.boxes[0].tolist()[1:] == [0, 64, 64]
    assert 30 <= found.boxes[0][0] <= 34
    alone = instances(raw, SQUARE, TWO_CLASSES, Thresholds(max_instances=2, tasks=("instance",)))
    assert alone.classes.tolist() == [STUFF, THING]
    everything = instances(raw, SQUARE, TWO_CLASSES, Thresholds(max_instances=1000, tasks=("instance",)))
    assert len(everything.scores) == len(everything.crops) == 6
    assert (np.diff(everything.scores) <= 0).all()


def test_no_instance_left() -> None:
    found = instances(scene((STUFF, 9, ALL, 5)), SQUARE, TWO_CLASSES, Thresholds(max_instances=1))
    assert (found.scores.shape, found.classes.shape, found.boxes.shape, found.crops) == ((0,), (0,), (0, 4), ())


def test_resizing_masks_and_resizing_scores_give_different_maps() -> None:
    """Otherwise the comparison of both with the official form would say nothing about the rule."""
    placement = PLACEMENTS["enlarged"]
    raw, classes = make_scene("noise", placement)
    masks_first, scores_first = (
        semantic(raw, placement, classes, Thresholds(resize_masks_first=rule)).map for rule in (True, False)
    )
    assert np.count_nonzero(masks_first != scores_first) > DIFFERING_PIXELS * masks_first.size


# --- input that cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
@pytest.mark.parametrize(
    ("name", "value"), [("class_logits", np.nan), ("mask_logits", np.nan), ("mask_logits", -np.inf)]
)
def test_logits_that_are_not_numbers(task: str, name: str, value: float) -> None:
    raw = scene((THING, 9, ALL, 5))
    damaged = getattr(raw, name).copy()
    damaged.flat[1] = value
    raw = dataclasses.replace(raw, **{name: damaged})
    with pytest.raises(InputError, match=f"{name} hold 1 NaN or infinite"):
        postprocess(raw, SQUARE, TWO_CLASSES, Thresholds(), task)


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_outputs_that_do_not_fit(task: str) -> None:
    raw = scene((THING, 9, ALL, 5))
    with pytest.raises(InputError, match="3 columns, expected 3 classes"):
        postprocess(raw, SQUARE, make_classes(3, 3), Thresholds(), task)
    with pytest.raises(InputError, match="16x16, expected 16x24"):
        postprocess(raw, Placement((64, 96), (64, 96), (64, 96)), TWO_CLASSES, Thresholds(), task)


def test_unknown_task() -> None:
    with pytest.raises(InputError, match=r"'instances'.*panoptic, instance, semantic"):
        postprocess(scene((THING, 9, ALL, 5)), SQUARE, TWO_CLASSES, Thresholds(), "instances")


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_peak_memory_at_full_hd(task: str) -> None:
    """100 full-size masks in float32 would take 830 MB."""
    placement = Placement((1080, 1920), (750, 1333), (800, 1344))
    raw = typical_scene((200, 336))
    tracemalloc.start()
    try:
        postprocess(raw, placement, COCO, Thresholds(), task)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 5e6 < peak < 400e6
