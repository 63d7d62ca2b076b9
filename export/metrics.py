"""Panoptic quality and mean IoU, as streaming sums; mask AP is in :mod:`proscale_deploy.export.mask_ap`.

Each ``add`` gives back what the picture added, as plain numbers that survive JSON; ``restore`` adds it again.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Panoptic, Semantic

__all__ = ["MeanIoU", "PanopticQuality", "PanopticScores", "QualityScore", "SemanticScores"]

Rows = list[list[float]]
"""One row per class that a picture holds, the class first."""


@dataclass(frozen=True)
class QualityScore:
    """Means over classes, in percent: ``pq`` = panoptic, ``sq`` = segmentation, ``rq`` = recognition quality."""

    pq: float
    sq: float
    rq: float
    classes: int
    """Classes that occur, in the truth or in a prediction; the others do not count."""


@dataclass(frozen=True)
class PanopticScores:
    """``all``, ``things`` and ``stuff`` are means over their classes; ``per_class`` has one score per class."""

    all: QualityScore
    things: QualityScore
    stuff: QualityScore
    per_class: tuple[QualityScore, ...]


class PanopticQuality:
    """PQ (Kirillov et al. 2019, arXiv 1801.00868, section 4): a predicted and a true segment of one class match if
    their IoU is above 1/2, which leaves no choice; PQ = sum of IoU over matches / (TP + FP/2 + FN/2).

    Void (0 in the true map) is taken out of a prediction before its IoU is taken, and a segment that lies in void by
    more than half is not counted as wrong. The same holds for crowds, true segments of many things of one class, for
    predictions of that class; a crowd itself is neither matched nor missed (``pq_compute_single_core`` of panopticapi,
    which of several crowds of one class in a picture takes the last; COCO and Cityscapes have one at most).
    """

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        self._things = np.array([info.is_thing for info in classes], np.bool_)
        self._iou = np.zeros(len(classes))
        self._counts = np.zeros((len(classes), 3), np.int64)
        """(K, 3): true positives, false positives, false negatives."""

    def add(self, predicted: Panoptic, truth: Panoptic, crowds: Collection[int] = ()) -> Rows:
        """Count one picture; ``crowds`` are ids of segments of ``truth``.

        Returns:
            Rows of class, sum of IoU, true positives, false positives, false negatives.

        Raises:
            InputError: the maps differ in size, or a map holds an id that its segments do not name.
        """
        if predicted.map.shape != truth.map.shape:
            raise InputError(f"expected maps of one size, found {predicted.map.shape} and {truth.map.shape}")
        ours, theirs = _Index(predicted, "predicted"), _Index(truth, "true")
        joint = np.bincount(
            (ours.of_pixel * theirs.size + theirs.of_pixel).ravel(), minlength=ours.size * theirs.size
        ).reshape(ours.size, theirs.size)
        area, true_area, void = joint.sum(axis=1), joint.sum(axis=0), joint[:, 0]
        union = area[:, None] + true_area[None, :] - joint - void[:, None]
        iou = np.where(joint > 0, joint / np.maximum(union, 1), 0.0)
        same = ours.classes[:, None] == theirs.classes[None, :]
        same[0], same[:, 0] = False, False
        crowd = np.isin(theirs.ids, list(crowds)) & (theirs.ids != 0)
        hit, of = np.nonzero(same & (iou > 0.5) & ~crowd)
        # Pixels of each prediction that cannot be wrong: in void, or in a crowd of its class.
        excused = void + (joint * (same & crowd)).sum(axis=1)
        extra = (area > 0) & ~np.isin(np.arange(ours.size), hit) & (2 * excused <= area)
        missed = (true_area > 0) & ~np.isin(np.arange(theirs.size), of) & ~crowd
        extra[0], missed[0] = False, False

        count = len(self._things)
        total = np.bincount(ours.classes[hit], iou[hit, of], minlength=count)
        of_kind = (ours.classes[hit], ours.classes[extra], theirs.classes[missed])
        matched, wrong, lost = (np.bincount(classes, minlength=count) for classes in of_kind)
        rows: Rows = [
            [class_id, float(total[class_id]), *(int(n[class_id]) for n in (matched, wrong, lost))]
            for class_id in np.flatnonzero(matched + wrong + lost).tolist()
        ]
        self.restore(rows)
        return rows

    def restore(self, rows: Iterable[Sequence[float]]) -> None:
        """Count a picture by what :meth:`add` gave for it."""
        for class_id, iou, *counts in rows:
            self._iou[int(class_id)] += iou
            self._counts[int(class_id)] += np.array(counts, np.int64)

    def counts(self) -> NDArray[np.int64]:
        """(K, 3): true positives, false positives and false negatives of each class so far."""
        return self._counts.copy()

    def result(self) -> PanopticScores:
        """Scores of all pictures so far; a mean over no class is nan."""
        matched, extra, missed = self._counts.T
        weight = matched + (extra + missed) / 2
        present = weight > 0
        sq = self._iou / np.maximum(matched, 1)
        rq = matched / np.where(present, weight, 1)

        def mean(chosen: NDArray[np.bool_]) -> QualityScore:
            count = int(chosen.sum())
            if not count:
                return QualityScore(np.nan, np.nan, np.nan, 0)
            pq, s, r = (100 * float(v[chosen].mean()) for v in (sq * rq, sq, rq))
            return QualityScore(pq, s, r, count)

        single = np.eye(len(weight), dtype=np.bool_)
        return PanopticScores(
            mean(present),
            mean(present & self._things),
            mean(present & ~self._things),
            tuple(mean(row & present) for row in single),
        )


class _Index:
    """Segments renumbered 1..n with 0 for void, and their classes (-1 for void)."""

    def __init__(self, panoptic: Panoptic, whose: str) -> None:
        ids = np.array(sorted(s.id for s in panoptic.segments), np.int64)
        ids = np.concatenate([[0], ids[ids != 0]])
        of_class = {s.id: s.class_id for s in panoptic.segments}
        self.ids, self.size = ids, len(ids)
        self.classes = np.array([-1, *(of_class[int(i)] for i in ids[1:])], np.int64)
        self.of_pixel = np.searchsorted(ids, panoptic.map).clip(max=len(ids) - 1)
        stray = panoptic.map[ids[self.of_pixel] != panoptic.map]
        if stray.size:
            raise InputError(f"the {whose} map holds the id {int(stray[0])}, which none of its segments has")


@dataclass(frozen=True)
class SemanticScores:
    """In percent. ``iou`` (K,): nan for a class that does not occur in the truth, which does not count in the mean."""

    miou: float
    pixel_accuracy: float
    iou: NDArray[np.float64]


class MeanIoU:
    """Mean over the classes of the truth of TP / (TP + FP + FN), counted in pixels over all pictures
    (``SemSegEvaluator`` of detectron2).
    """

    def __init__(self, num_classes: int) -> None:
        self._pixels = np.zeros((num_classes, 3), np.int64)
        """(K, 3): hit, predicted, true."""

    def add(self, predicted: Semantic, truth: NDArray[np.integer[Any]]) -> Rows:
        """Count one picture; ``truth`` (H, W) holds classes, any other number is void.

        Returns:
            Rows of class, pixels hit, predicted, true; none of them in void.

        Raises:
            InputError: the maps differ in size, or the prediction holds a number that is no class.
        """
        if predicted.map.shape != truth.shape:
            raise InputError(f"expected maps of one size, found {predicted.map.shape} and {truth.shape}")
        count = len(self._pixels)
        known = (truth >= 0) & (truth < count)
        ours, theirs = predicted.map[known], truth[known]
        if ours.size and (ours.min() < 0 or ours.max() >= count):
            raise InputError(f"expected predicted classes 0..{count - 1}, found {int(ours.min())}..{int(ours.max())}")
        pixels = [np.bincount(classes, minlength=count) for classes in (ours[ours == theirs], ours, theirs)]
        present = np.flatnonzero(pixels[1] + pixels[2]).tolist()
        rows: Rows = [[class_id, *(int(n[class_id]) for n in pixels)] for class_id in present]
        self.restore(rows)
        return rows

    def restore(self, rows: Iterable[Sequence[float]]) -> None:
        """Count a picture by what :meth:`add` gave for it."""
        for class_id, *pixels in rows:
            self._pixels[int(class_id)] += np.array(pixels, np.int64)

    def result(self) -> SemanticScores:
        """Scores of all pictures so far."""
        hit, predicted, true = self._pixels.T
        union = predicted + true - hit
        iou = np.where(true > 0, 100 * hit / np.maximum(union, 1), np.nan)
        if not true.any():
            return SemanticScores(np.nan, np.nan, iou)
        return SemanticScores(float(np.nanmean(iou)), float(100 * hit.sum() / true.sum()), iou)
