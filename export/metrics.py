"""The task metrics of the field, as streaming sums: panoptic quality, mean IoU and mask AP."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Semantic

__all__ = ["MaskAP", "MeanIoU", "PanopticQuality", "PanopticScores", "QualityScore", "SemanticScores"]


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
    more than half is not counted as wrong.
    """

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        self._things = np.array([info.is_thing for info in classes], np.bool_)
        self._iou = np.zeros(len(classes))
        self._matched, self._extra, self._missed = (np.zeros(len(classes), np.int64) for _ in range(3))

    def add(self, predicted: Panoptic, truth: Panoptic) -> None:
        """Count one picture.

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
        hit, of = np.nonzero(same & (iou > 0.5))
        np.add.at(self._iou, ours.classes[hit], iou[hit, of])
        np.add.at(self._matched, ours.classes[hit], 1)
        unmatched = (area > 0) & ~np.isin(np.arange(ours.size), hit) & (2 * void <= area)
        unmatched[0] = False
        missed = (true_area > 0) & ~np.isin(np.arange(theirs.size), of)
        missed[0] = False
        np.add.at(self._extra, ours.classes[unmatched], 1)
        np.add.at(self._missed, theirs.classes[missed], 1)

    def result(self) -> PanopticScores:
        """Scores of all pictures so far; a mean over no class is nan."""
        weight = self._matched + (self._extra + self._missed) / 2
        present = weight > 0
        safe = np.where(present, weight, 1)
        sq = self._iou / np.maximum(self._matched, 1)
        rq = self._matched / safe

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
        self.size = len(ids)
        self.classes = np.array([-1, *(of_class[int(i)] for i in ids[1:])], np.int64)
        self.of_pixel = np.searchsorted(ids, panoptic.map).clip(max=len(ids) - 1)
        stray = panoptic.map[ids[self.of_pixel] != panoptic.map]
        if stray.size:
            raise InputError(f"the {whose} map holds the id {int(stray[0])}, which none of its segments has")


@dataclass(frozen=True)
class SemanticScores:
    """In percent. ``iou`` (K,): nan for a class that occurs neither in the truth nor in a prediction."""

    miou: float
    pixel_accuracy: float
    iou: NDArray[np.float64]


class MeanIoU:
    """Mean over classes of TP / (TP + FP + FN), counted in pixels over all pictures."""

    def __init__(self, num_classes: int) -> None:
        self._confusion = np.zeros((num_classes, num_classes), np.int64)

    def add(self, predicted: Semantic, truth: NDArray[np.integer[Any]]) -> None:
        """Count one picture; ``truth`` (H, W) holds classes, any other number is void.

        Raises:
            InputError: the maps differ in size, or the prediction holds a number that is no class.
        """
        if predicted.map.shape != truth.shape:
            raise InputError(f"expected maps of one size, found {predicted.map.shape} and {truth.shape}")
        count = len(self._confusion)
        known = (truth >= 0) & (truth < count)
        ours, theirs = predicted.map[known].astype(np.int64), truth[known].astype(np.int64)
        if ours.size and (ours.min() < 0 or ours.max() >= count):
            raise InputError(f"expected predicted classes 0..{count - 1}, found {int(ours.min())}..{int(ours.max())}")
        self._confusion += np.bincount(theirs * count + ours, minlength=count**2).reshape(count, count)

    def result(self) -> SemanticScores:
        """Scores of all pictures so far."""
        hit = np.diag(self._confusion)
        union = self._confusion.sum(axis=0) + self._confusion.sum(axis=1) - hit
        iou = np.where(union > 0, 100 * hit / np.maximum(union, 1), np.nan)
        if not union.any():
            return SemanticScores(np.nan, np.nan, iou)
        return SemanticScores(float(np.nanmean(iou)), float(100 * hit.sum() / self._confusion.sum()), iou)


class MaskAP:
    """COCO's average precision of instance masks, by pycocotools."""

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        try:
            from pycocotools import mask
        except ImportError as error:
            raise MissingDependency("pycocotools", "coco", "average precision") from error
        self._encode: Any = mask.encode
        self._classes = classes
        self._images: list[dict[str, Any]] = []
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(self, predicted: Instances, truth: Panoptic) -> None:
        """Count one picture: the thing segments of ``truth`` are the true instances.

        Raises:
            InputError: the two differ in size.
        """
        if predicted.size != truth.map.shape:
            raise InputError(f"expected maps of one size, found {predicted.size} and {truth.map.shape}")
        image = len(self._images) + 1
        height, width = truth.map.shape
        self._images.append({"id": image, "height": height, "width": width})
        for segment in truth.segments:
            if segment.is_thing:
                rle = self._rle(truth.map == segment.id)
                entry: dict[str, Any] = {
                    "id": len(self._truth) + 1,
                    "image_id": image,
                    "category_id": segment.class_id,
                }
                self._truth.append({**entry, "segmentation": rle, "area": segment.area, "iscrowd": 0})
        for index, (score, class_id) in enumerate(zip(predicted.scores, predicted.classes, strict=True)):
            rle = self._rle(predicted.mask(index))
            category, confidence = int(class_id), float(score)
            self._found.append({"image_id": image, "category_id": category, "score": confidence, "segmentation": rle})

    def result(self) -> dict[str, float]:
        """``AP`` (IoU 0.50:0.95), ``AP50``, ``AP75`` in percent; nan where there is no true instance."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        names = ("AP", "AP50", "AP75")
        if not self._truth:
            return dict.fromkeys(names, np.nan)
        if not self._found:
            return dict.fromkeys(names, 0.0)
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            categories = [{"id": i, "name": c.name} for i, c in enumerate(self._classes) if c.is_thing]
            coco.dataset = {"info": {}, "images": self._images, "annotations": self._truth, "categories": categories}
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(self._found), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return {name: 100 * float(value) for name, value in zip(names, evaluation.stats, strict=False)}

    def _rle(self, mask: NDArray[np.bool_]) -> dict[str, Any]:
        return dict(self._encode(np.asfortranarray(mask, np.uint8)))
