"""Mask AP, COCO's average precision of instances, as a streaming sum; ``add`` and ``restore`` as in ``metrics``."""

import contextlib
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.types import ClassInfo, Instances, Panoptic

__all__ = ["InstanceScores", "MaskAP", "TrueInstance"]


@dataclass(frozen=True)
class TrueInstance:
    """One instance of the truth."""

    class_id: int
    rle: dict[str, Any]
    """COCO's compressed run lengths: size [H, W], counts as text."""
    area: float
    """Pixels, as the data set says: decides between small, medium and large."""
    is_crowd: bool
    """Many things as one: predictions in it are neither right nor wrong."""


@dataclass(frozen=True)
class InstanceScores:
    """COCO's figures, in percent; nan where there is no true instance of the kind."""

    ap: float
    """Mean over IoU thresholds 0.50, 0.55, ... 0.95, and over classes."""
    ap50: float
    ap75: float
    small: float
    """AP of instances below 32 x 32 pixels; ``large`` from 96 x 96 on."""
    medium: float
    large: float
    per_class: tuple[float, ...]
    """AP of each of the K classes; nan for stuff."""


class MaskAP:
    """COCO's average precision of instance masks, by pycocotools."""

    def __init__(self, classes: Sequence[ClassInfo]) -> None:
        try:
            from pycocotools import mask
        except ImportError as error:
            raise MissingDependency("pycocotools", "coco", "average precision") from error
        self._encode: Any = mask.encode
        self._area: Any = mask.area
        self._classes = classes
        self._images: list[dict[str, Any]] = []
        self._truth: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def add(
        self, predicted: Instances, truth: Panoptic | Sequence[TrueInstance], crowds: Collection[int] = ()
    ) -> dict[str, Any]:
        """Count one picture. The instances of a panoptic truth are its thing segments; ``crowds`` are ids of those.

        Returns:
            size, and in COCO's form truth and found.

        Raises:
            InputError: the two differ in size.
        """
        if isinstance(truth, Panoptic):
            sizes = {truth.map.shape}
            truth = self._instances(truth, frozenset(crowds))
        else:
            sizes = {tuple(instance.rle["size"]) for instance in truth}
        if not sizes <= {predicted.size}:
            raise InputError(f"expected masks of one size, found {predicted.size} and {sorted(sizes)[0]}")
        record: dict[str, Any] = {
            "size": list(predicted.size),
            "truth": [
                {"category_id": i.class_id, "segmentation": i.rle, "area": i.area, "iscrowd": int(i.is_crowd)}
                for i in truth
            ],
            "found": [
                {"category_id": int(class_id), "score": float(score), "segmentation": self._crop_rle(predicted, index)}
                for index, (score, class_id) in enumerate(zip(predicted.scores, predicted.classes, strict=True))
            ],
        }
        self.restore(record)
        return record

    def as_truth(self, instances: Instances, least_score: float) -> list[TrueInstance]:
        """The instances that score at least so much, as a truth for those of another model."""
        return [
            TrueInstance(int(instances.classes[index]), self._crop_rle(instances, index), int(crop.sum()), False)
            for index, crop in enumerate(instances.crops)
            if instances.scores[index] >= least_score and crop.any()
        ]

    def restore(self, record: dict[str, Any]) -> None:
        """Count a picture by what :meth:`add` gave for it."""
        image = len(self._images) + 1
        height, width = record["size"]
        self._images.append({"id": image, "height": height, "width": width})
        for entry in record["truth"]:
            self._truth.append({"id": len(self._truth) + 1, "image_id": image, **entry})
        for entry in record["found"]:
            area = float(self._area(entry["segmentation"]))
            numbers = {"id": len(self._found) + 1, "image_id": image, "area": area, "iscrowd": 0}
            self._found.append({**numbers, **entry})

    def result(self) -> InstanceScores:
        """Scores of all pictures so far."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        things = [index for index, info in enumerate(self._classes) if info.is_thing]
        categories = [{"id": index, "name": self._classes[index].name} for index in things]

        def coco(annotations: list[dict[str, Any]]) -> Any:
            data = COCO()
            data.dataset = {"info": {}, "images": self._images, "annotations": annotations, "categories": categories}
            data.createIndex()
            return data

        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(coco(self._truth), coco(self._found), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        ap, ap50, ap75, small, medium, large = (
            100 * float(value) if value >= 0 else np.nan for value in evaluation.stats[:6]
        )
        # (threshold, recall, class, area range, detections): all areas, most detections; -1 where there is no truth
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        per_class = [np.nan] * len(self._classes)
        for position, index in enumerate(things):
            if (precision[:, :, position] >= 0).any():
                per_class[index] = 100 * float(precision[:, :, position].mean())
        return InstanceScores(ap, ap50, ap75, small, medium, large, tuple(per_class))

    def _instances(self, truth: Panoptic, crowds: frozenset[int]) -> list[TrueInstance]:
        # pycocotools wants masks in Fortran order: turn the map once, not every mask.
        map_ = np.asfortranarray(truth.map)
        return [
            TrueInstance(s.class_id, self._rle((map_ == s.id).view(np.uint8)), s.area, s.id in crowds)
            for s in truth.segments
            if s.is_thing
        ]

    def _crop_rle(self, predicted: Instances, index: int) -> dict[str, Any]:
        mask = np.zeros(predicted.size, np.uint8, order="F")
        left, top, right, bottom = predicted.boxes[index]
        mask[top:bottom, left:right] = predicted.crops[index]
        return self._rle(mask)

    def _rle(self, mask: NDArray[np.uint8]) -> dict[str, Any]:
        rle = self._encode(mask)
        return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
