"""Metrics against examples worked out by hand and against slow, independent counting."""

import json
from math import nan

import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Segment, Semantic
from proscale_deploy.export.mask_ap import MaskAP, TrueInstance
from proscale_deploy.export.metrics import MeanIoU, PanopticQuality

CLASSES = (
    ClassInfo("car", True, (0, 0, 255)),
    ClassInfo("person", True, (255, 0, 0)),
    ClassInfo("road", False, (90, 90, 90)),
    ClassInfo("sky", False, (0, 200, 255)),
)


def panoptic(rows: list[list[int]], classes: dict[int, int]) -> Panoptic:
    ids = np.array(rows, np.int32)
    segments = (Segment(i, c, CLASSES[c].is_thing, int((ids == i).sum()), 1.0) for i, c in classes.items())
    return Panoptic(ids, tuple(segments))


def quality(predicted: Panoptic, truth: Panoptic) -> PanopticQuality:
    measured = PanopticQuality(CLASSES)
    measured.add(predicted, truth)
    return measured


def test_panoptic_quality_worked_example() -> None:
    truth = panoptic([[1, 1, 1, 1, 2, 2], [3, 3, 3, 3, 3, 3]], {1: 0, 2: 0, 3: 2})
    # Car 1: 3 of 4 pixels, IoU 3/4, a match. Car 2: pixel 4 goes to "person", half of it is found: IoU 1/2, no match.
    # Road: whole. So car: TP 1 (3/4), FP 1, FN 1; person: FP 1; road: TP 1 (1).
    found = panoptic([[7, 7, 7, 9, 9, 5], [4, 4, 4, 4, 4, 4]], {7: 0, 5: 0, 9: 1, 4: 2})
    scores = quality(found, truth).result()
    car, person, road, sky = scores.per_class
    assert (car.pq, car.sq, car.rq) == pytest.approx((37.5, 75, 50))
    assert (person.pq, person.sq, person.rq) == (0, 0, 0)
    assert (road.pq, road.sq, road.rq) == pytest.approx((100, 100, 100))
    assert sky.classes == 0
    assert np.isnan(sky.pq)
    assert scores.things.pq == pytest.approx((37.5 + 0) / 2)
    assert scores.stuff.pq == pytest.approx(100)
    assert scores.all.pq == pytest.approx(137.5 / 3)
    assert (scores.all.classes, scores.things.classes, scores.stuff.classes) == (3, 2, 1)


def test_panoptic_quality_is_the_product_of_its_parts() -> None:
    # The case of figure 2 of Kirillov et al.: of the persons two are matched, one is missed, one is invented.
    truth = panoptic([[1] * 4 + [2] * 5 + [3] * 2 + [9] * 9], {1: 1, 2: 1, 3: 1, 9: 3})
    found = panoptic([[1] * 3 + [9] + [2] * 3 + [9] * 11 + [4] * 2], {1: 1, 2: 1, 4: 1, 9: 3})
    person = quality(found, truth).result().per_class[1]
    assert person.sq == pytest.approx(100 * (3 / 4 + 3 / 5) / 2)
    assert person.rq == pytest.approx(100 * 2 / (2 + 1 / 2 + 1 / 2))
    assert person.pq == pytest.approx(100 * (3 / 4 + 3 / 5) / 3)


def test_void_is_left_out_of_the_union_and_of_false_positives() -> None:
    truth = panoptic([[1, 1, 0, 0, 0, 2]], {1: 0, 2: 2})
    # The car covers two void pixels: IoU 2/2. The person lies two thirds in void: not counted as wrong.
    found = panoptic([[1, 1, 1, 1, 0, 2]], {1: 0, 2: 2})
    assert quality(found, truth).result().per_class[0].pq == pytest.approx(100)
    in_void = panoptic([[1, 1, 3, 3, 3, 3]], {1: 0, 3: 1})
    scores = quality(in_void, truth).result()
    assert scores.per_class[1].classes == 0
    assert scores.per_class[2].pq == 0


def test_half_in_void_still_counts_as_wrong() -> None:
    truth = panoptic([[0, 2]], {2: 2})
    found = panoptic([[3, 3]], {3: 1})
    assert quality(found, truth).result().per_class[1].pq == 0


def test_unlabelled_prediction_is_no_segment() -> None:
    truth = panoptic([[1, 1, 2, 2]], {1: 0, 2: 2})
    scores = quality(panoptic([[1, 1, 0, 0]], {1: 0}), truth).result()
    assert scores.per_class[0].pq == pytest.approx(100)
    assert scores.per_class[2].pq == 0


def test_sums_run_over_pictures_before_the_division() -> None:
    truth = panoptic([[1, 1, 1, 1]], {1: 0})
    measured = PanopticQuality(CLASSES)
    measured.add(panoptic([[1, 1, 1, 0]], {1: 0}), truth)
    measured.add(panoptic([[0, 0, 0, 0]], {}), truth)
    # One match of 3/4 and one miss: (3/4) / (1 + 1/2).
    assert measured.result().all.pq == pytest.approx(50)


def random_panoptic(rng: np.random.Generator, size: int, void: bool) -> Panoptic:
    """Rectangles over one another, so that segments of all shapes and overlaps arise."""
    ids = np.zeros((size, size), np.int32)
    classes = {}
    for index in range(9):
        y, x = rng.integers(0, size, 2)
        h, w = rng.integers(2, size, 2)
        identity = int(rng.integers(1, 400)) * 10 + index
        classes[identity] = int(rng.integers(0, 4)) if index else 3
        ids[(slice(None), slice(None)) if index == 0 and not void else (slice(y, y + h), slice(x, x + w))] = identity
    return panoptic(ids.tolist(), {i: c for i, c in classes.items() if (ids == i).any()})


Pair = tuple[Panoptic, Panoptic, frozenset[int]]
"""Prediction, truth, crowds of the truth."""


def counted_slowly(pairs: list[Pair]) -> list[float]:
    """PQ per class from Python sets of pixels: equation 1 of the paper, crowds as panopticapi treats them."""
    result = []
    for class_id in range(len(CLASSES)):
        iou_sum, matched, extra, missed = 0.0, 0, 0, 0
        for predicted, truth, crowds in pairs:
            void = pixels(truth, 0)
            ours = [pixels(predicted, s.id) for s in predicted.segments if s.class_id == class_id]
            true = [s for s in truth.segments if s.class_id == class_id]
            theirs = [pixels(truth, s.id) for s in true if s.id not in crowds]
            crowded = set().union(*(pixels(truth, s.id) for s in true if s.id in crowds))
            open_truth = list(theirs)
            for segment in ours:
                hits = [t for t in theirs if len(segment & t) / len((segment - void) | t) > 0.5]
                if hits:
                    (hit,) = hits
                    iou_sum += len(segment & hit) / len((segment - void) | hit)
                    matched += 1
                    open_truth.remove(hit)
                elif len(segment & void) + len(segment & crowded) <= len(segment) / 2:
                    extra += 1
            missed += len(open_truth)
        total = matched + extra / 2 + missed / 2
        result.append(100 * iou_sum / total if total else np.nan)
    return result


def pixels(picture: Panoptic, identity: int) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for y, x in np.argwhere(picture.map == identity)}


def random_pairs() -> list[Pair]:
    rng = np.random.default_rng(3)
    pairs = []
    for _ in range(30):
        truth = random_panoptic(rng, 14, void=True)
        shift = np.roll(truth.map, rng.integers(-1, 2), axis=1)
        shifted = panoptic(shift.tolist(), {s.id: s.class_id for s in truth.segments if (shift == s.id).any()})
        crowds = frozenset(s.id for s in truth.segments if s.is_thing and rng.random() < 0.4)
        pairs.append((shifted if rng.random() < 0.7 else random_panoptic(rng, 14, void=False), truth, crowds))
    return pairs


def test_panoptic_quality_equals_slow_counting() -> None:
    for pairs in (random_pairs(), [(found, truth, frozenset[int]()) for found, truth, _ in random_pairs()]):
        measured = PanopticQuality(CLASSES)
        for found, truth, crowds in pairs:
            measured.add(found, truth, crowds)
        expected = counted_slowly(pairs)
        assert np.nanmin(expected) > 5  # the case is not an empty one
        np.testing.assert_allclose([s.pq for s in measured.result().per_class], expected, rtol=1e-12)


def test_a_crowd_excuses_predictions_of_its_class_only() -> None:
    truth = panoptic([[1, 1, 1, 1, 2, 2]], {1: 0, 2: 2})
    found = panoptic([[3, 3, 4, 4, 2, 2]], {3: 0, 4: 1, 2: 2})
    measured = PanopticQuality(CLASSES)
    measured.add(found, truth, {1})
    # The car in the crowd of cars is not wrong, the person is; the crowd is not missed.
    assert measured.counts().tolist() == [[0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]


def test_restored_counts_are_exactly_those_counted() -> None:
    counted, restored = PanopticQuality(CLASSES), PanopticQuality(CLASSES)
    for found, truth, crowds in random_pairs():
        restored.restore(json.loads(json.dumps(counted.add(found, truth, crowds))))
    np.testing.assert_equal(
        [[s.pq, s.sq, s.rq] for s in restored.result().per_class],
        [[s.pq, s.sq, s.rq] for s in counted.result().per_class],
    )


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (panoptic([[1, 1, 1]], {1: 0}), "maps of one size"),
        (panoptic([[1, 8]], {1: 0}), "predicted map holds the id 8"),
        (panoptic([[1, -4]], {1: 0}), "predicted map holds the id -4"),
    ],
)
def test_unusable_maps(found: Panoptic, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PanopticQuality(CLASSES).add(found, panoptic([[1, 1]], {1: 0}))


def semantic(rows: list[list[int]]) -> Semantic:
    classes = np.array(rows, np.int32)
    return Semantic(classes, np.ones(classes.shape, np.float32))


def test_mean_iou_worked_example() -> None:
    measured = MeanIoU(4)
    # Class 0: TP 2, FN 2 -> 1/2. Class 1: TP 1, FP 1 -> 1/2. Class 2: FP under void, nothing. Class 3: FP, but not in
    # the truth: it costs class 0 a pixel and does not count itself.
    measured.add(semantic([[0, 0, 1, 1, 2, 3]]), np.array([[0, 0, 0, 1, 255, 0]]))
    scores = measured.result()
    np.testing.assert_allclose(scores.iou, [50, 50, np.nan, np.nan])
    assert scores.miou == pytest.approx(50)
    assert scores.pixel_accuracy == pytest.approx(60)


def test_mean_iou_of_nothing_and_of_bad_input() -> None:
    measured = MeanIoU(2)
    assert np.isnan(measured.result().miou)
    with pytest.raises(InputError, match=r"classes 0\.\.1"):
        measured.add(semantic([[2]]), np.array([[0]]))
    with pytest.raises(InputError, match="one size"):
        measured.add(semantic([[0, 0]]), np.array([[0]]))


def test_mean_iou_equals_slow_counting_also_restored() -> None:
    rng = np.random.default_rng(5)
    pairs = [(rng.integers(0, 4, (9, 11)), rng.integers(-1, 5, (9, 11))) for _ in range(6)]
    measured, restored = MeanIoU(4), MeanIoU(4)
    for found, truth in pairs:
        restored.restore(json.loads(json.dumps(measured.add(semantic(found.tolist()), truth))))
    expected = []
    for class_id in range(4):
        both = either = 0
        for found, truth in pairs:
            for ours, theirs in zip(found.ravel(), truth.ravel(), strict=True):
                both += ours == theirs == class_id
                either += (ours == class_id and 0 <= theirs < 4) or theirs == class_id
        expected.append(100 * both / either)
    np.testing.assert_allclose(measured.result().iou, expected, rtol=1e-12)
    np.testing.assert_array_equal(restored.result().iou, measured.result().iou)
    assert restored.result().pixel_accuracy == measured.result().pixel_accuracy


def instances(size: tuple[int, int], *found: tuple[float, int, tuple[int, int, int, int]]) -> Instances:
    boxes = np.array([box for _, _, box in found], np.int32).reshape(-1, 4)
    crops = tuple(np.ones((b - t, r - left), np.bool_) for left, t, r, b in boxes)
    scores = np.array([score for score, _, _ in found], np.float32)
    return Instances(size, scores, np.array([c for _, c, _ in found], np.int64), boxes, crops)


def test_mask_ap_worked_example() -> None:
    ids = np.zeros((40, 40), np.int32)
    ids[:20, :40] = 1  # a car, 800 pixels
    ids[30:, :] = 2  # road
    truth = Panoptic(ids, (Segment(1, 0, True, 800, 1.0), Segment(2, 2, False, 400, 1.0)))
    measured = MaskAP(CLASSES)
    # 25 of 40 columns: IoU 0.625, a match at 0.50, 0.55 and 0.60, so AP is 3 of 10 thresholds.
    measured.add(instances((40, 40), (0.9, 0, (0, 0, 25, 20))), truth)
    scores = measured.result()
    assert (scores.ap, scores.ap50, scores.ap75, scores.medium) == pytest.approx((30, 100, 0, nan), nan_ok=True)
    assert scores.per_class == pytest.approx((30, nan, nan, nan), nan_ok=True)
    # A better-scored false alarm halves the precision of what comes after it.
    alarmed = MaskAP(CLASSES)
    alarmed.add(instances((40, 40), (0.95, 0, (0, 25, 9, 29)), (0.9, 0, (0, 0, 40, 20))), truth)
    assert alarmed.result().ap == pytest.approx(50)


def test_mask_ap_without_truth_or_findings(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = Panoptic(np.zeros((4, 4), np.int32), ())
    measured = MaskAP(CLASSES)
    measured.add(instances((4, 4), (0.9, 0, (0, 0, 2, 2))), nothing)
    assert np.isnan(measured.result().ap)
    measured = MaskAP(CLASSES)
    measured.add(instances((4, 4)), Panoptic(np.ones((4, 4), np.int32), (Segment(1, 0, True, 16, 1.0),)))
    assert (measured.result().ap, measured.result().per_class[0]) == (0, 0)
    assert capsys.readouterr().out == ""


def test_mask_ap_of_another_size() -> None:
    truth = Panoptic(np.ones((4, 4), np.int32), (Segment(1, 0, True, 16, 1.0),))
    with pytest.raises(InputError, match="one size"):
        MaskAP(CLASSES).add(instances((4, 5), (0.9, 0, (0, 0, 2, 2))), truth)
    crop = TrueInstance(0, {"size": [4, 4], "counts": "04"}, 4.0, False)
    with pytest.raises(InputError, match="one size"):
        MaskAP(CLASSES).add(instances((4, 5), (0.9, 0, (0, 0, 2, 2))), [crop])


def test_mask_ap_of_crowds_and_restored() -> None:
    ids = np.zeros((40, 40), np.int32)
    ids[:10], ids[20:] = 1, 2  # a car, and a crowd of cars
    truth = Panoptic(ids, (Segment(1, 0, True, 400, 1.0), Segment(2, 0, True, 800, 1.0)))
    found = instances((40, 40), (0.9, 0, (0, 20, 10, 30)), (0.8, 0, (0, 0, 40, 10)))
    measured, restored = MaskAP(CLASSES), MaskAP(CLASSES)
    restored.restore(json.loads(json.dumps(measured.add(found, truth, {2}))))
    # What lies in the crowd is neither right nor wrong; were it wrong, AP would be 50.
    assert measured.result().ap == pytest.approx(100)
    assert restored.result().ap == measured.result().ap
    counted = MaskAP(CLASSES)
    counted.add(found, truth)
    assert counted.result().ap < 60


def test_mask_ap_without_things(capsys: pytest.CaptureFixture[str]) -> None:
    measured = MaskAP(CLASSES[2:])
    measured.add(instances((4, 4)), Panoptic(np.ones((4, 4), np.int32), (Segment(1, 0, False, 16, 1.0),)))
    assert np.isnan(measured.result().ap)
    assert capsys.readouterr().out == ""
