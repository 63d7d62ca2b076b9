"""A model against a data set whose truth is known: PQ, mIoU and mask AP, picture by picture."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Result, Semantic, Task
from proscale_deploy.export.datasets import Dataset, Truth
from proscale_deploy.export.journal import Journal
from proscale_deploy.export.mask_ap import MaskAP
from proscale_deploy.export.metrics import MeanIoU, PanopticQuality, QualityScore

__all__ = ["Evaluation", "Prediction", "Tally", "common_tasks", "evaluate"]


@dataclass(frozen=True)
class Prediction:
    """What a model says about one picture."""

    results: Mapping[Task, Result]
    seconds: Mapping[str, float]
    """Spent in each stage."""


@dataclass(frozen=True)
class Evaluation:
    """A whole data set, measured."""

    scores: dict[str, Any]
    """See :meth:`Tally.scores`."""
    latency: dict[str, dict[str, float]]
    """Stage -> milliseconds per picture: p50, p90."""
    pictures: int


class Tally:
    """All metrics of a model, from the results of its tasks and the truth.

    Args:
        classes: of the model, in the order of its logits.
        tasks: what is measured.

    Raises:
        MissingDependency: instances without pycocotools.
    """

    def __init__(self, classes: Sequence[ClassInfo], tasks: Collection[Task]) -> None:
        self._classes = classes
        self._quality = PanopticQuality(classes) if "panoptic" in tasks else None
        self._overlap = MeanIoU(len(classes)) if "semantic" in tasks else None
        self._precision = MaskAP(classes) if "instance" in tasks else None

    def add(self, results: Mapping[Task, Result], truth: Truth) -> dict[str, Any]:
        """Count one picture; gives what :meth:`restore` takes, which survives JSON.

        Raises:
            InputError: a result has not the size of the truth.
        """
        added: dict[str, Any] = {}
        if self._quality is not None and truth.panoptic is not None:
            added["panoptic"] = self._quality.add(cast(Panoptic, results["panoptic"]), truth.panoptic, truth.crowds)
        class_map = truth.class_map() if self._overlap is not None else None
        if self._overlap is not None and class_map is not None:
            added["semantic"] = self._overlap.add(cast(Semantic, results["semantic"]), class_map)
        instances = truth.panoptic if truth.instances is None else truth.instances
        if self._precision is not None and instances is not None:
            added["instance"] = self._precision.add(cast(Instances, results["instance"]), instances, truth.crowds)
        return added

    def restore(self, added: Mapping[str, Any]) -> None:
        """Count a picture by what :meth:`add` gave for it."""
        for task, metric in {"panoptic": self._quality, "semantic": self._overlap, "instance": self._precision}.items():
            if metric is not None and task in added:
                metric.restore(added[task])

    def scores(self) -> dict[str, Any]:
        """For JSON, in percent, rounded to two digits; None where there is nothing to measure.

        ``panoptic``: all, things, stuff -> pq, sq, rq. ``semantic``: miou, pixel_accuracy. ``instance``: AP, AP50,
        AP75, APs, APm, APl. ``classes``: name -> pq, sq, rq, tp, fp, fn (segments), iou, ap. Only what was measured.
        """
        scores: dict[str, Any] = {}
        of_class: dict[str, dict[str, Any]] = {info.name: {} for info in self._classes}
        if self._quality is not None:
            quality = self._quality.result()
            scores["panoptic"] = {name: _quality(getattr(quality, name)) for name in ("all", "things", "stuff")}
            rows = zip(of_class.values(), quality.per_class, self._quality.counts().tolist(), strict=True)
            for entry, score, counts in rows:
                entry.update(_quality(score), **dict(zip(("tp", "fp", "fn"), counts, strict=True)))
        if self._overlap is not None:
            regions = self._overlap.result()
            scores["semantic"] = {
                "miou": _round(regions.miou),
                "pixel_accuracy": _round(regions.pixel_accuracy),
            }
            for entry, iou in zip(of_class.values(), regions.iou.tolist(), strict=True):
                entry["iou"] = _round(iou)
        if self._precision is not None:
            found = self._precision.result()
            figures = (found.ap, found.ap50, found.ap75, found.small, found.medium, found.large)
            names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
            scores["instance"] = {name: _round(value) for name, value in zip(names, figures, strict=True)}
            for entry, ap in zip(of_class.values(), found.per_class, strict=True):
                entry["ap"] = _round(ap)
        return {**scores, "classes": of_class}


def common_tasks(model: Collection[Task], dataset: Dataset) -> tuple[Task, ...]:
    """What the model was trained for and the data set can judge, in the order of the model.

    Raises:
        InputError: nothing.
    """
    tasks = tuple(task for task in model if task in dataset.tasks)
    if not tasks:
        raise InputError(
            f"the model was trained for {', '.join(model)}, the data set holds the truth for "
            f"{', '.join(sorted(dataset.tasks))} only; give annotations of one of the model's tasks"
        )
    return tasks


def evaluate(
    dataset: Dataset,
    class_of: Mapping[int, int],
    tally: Tally,
    predict: Callable[[Path], Prediction],
    journal: Journal,
    progress: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Measure a model on every picture that ``journal`` does not hold yet; what it holds counts too.

    Args:
        dataset: the pictures and their truth.
        class_of: see :func:`~proscale_deploy.export.datasets.match_classes`.
        tally: new, of the model's classes and what is measured, see :func:`common_tasks`.
        predict: the model: an image file -> results of at least the tasks of ``tally``.
        journal: of this model and this data set.
        progress: called for every picture, also those that the journal holds.

    Raises:
        InputError: a picture or its annotation cannot be used.
    """
    seconds: dict[str, list[float]] = {}
    done: set[str] = set()

    def count(entry: dict[str, Any]) -> None:
        done.add(entry["picture"])
        for stage, value in entry["seconds"].items():
            seconds.setdefault(stage, []).append(value)
        progress()

    for entry in journal.entries:
        tally.restore(entry["added"])
        count(entry)
    for picture in dataset.pictures:
        if picture.name in done:
            continue
        truth = dataset.truth(picture, class_of)
        prediction = predict(picture.image)
        try:
            added = tally.add(prediction.results, truth)
        except InputError as error:
            raise InputError(f"{picture.image} and its annotation: {error}") from error
        entry = {"picture": picture.name, "added": added, "seconds": dict(prediction.seconds)}
        journal.append(entry)
        count(entry)
    return Evaluation(tally.scores(), {stage: _latency(values) for stage, values in seconds.items()}, len(done))


def _latency(seconds: Sequence[float]) -> dict[str, float]:
    p50, p90 = np.percentile(np.array(seconds) * 1000, (50, 90)).tolist()
    return {"p50": round(p50, 3), "p90": round(p90, 3)}


def _quality(score: QualityScore) -> dict[str, float | None]:
    return {"pq": _round(score.pq), "sq": _round(score.sq), "rq": _round(score.rq)}


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)
