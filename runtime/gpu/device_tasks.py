"""What post-processing does with one image whose mask logits are on the device, task by task.

Per query it is decided here, by the functions of :mod:`~proscale_deploy.runtime.panoptic` and its neighbours; per pixel
the kernels do it. The four steps of a task only queue work: whoever calls them waits between ``count`` and ``label``,
and between ``download`` and ``result``, for several images at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Result, Semantic, Size, Task, Thresholds
from proscale_deploy.runtime.compiled.mask_kernels import STATS, DeviceMasks, bitmap_words, crop, measure
from proscale_deploy.runtime.gpu.cuda import Stream
from proscale_deploy.runtime.gpu.workspace import NamedBuffers
from proscale_deploy.runtime.instances import best_pairs, rank
from proscale_deploy.runtime.panoptic import kept_queries, number_segments
from proscale_deploy.runtime.semantic import class_weights

__all__ = ["DEVICE_TASKS", "DeviceImage", "DeviceTask"]


@dataclass(frozen=True)
class DeviceImage:
    """One image of a batch, with all that its task needs to know."""

    masks: DeviceMasks
    queries: int
    output_hw: Size
    buffers: NamedBuffers
    stream: Stream
    classes: tuple[ClassInfo, ...]
    thresholds: Thresholds


class DeviceTask(Protocol):
    """Made before the network is queued: it takes all the memory it may need, and raises where there is too little."""

    def count(self, class_logits: NDArray[np.float32]) -> None:
        """Queue what the host has to know, with the class logits (Q, K+1) that tell which queries matter."""

    def label(self) -> None:
        """Queue what makes the result out of it."""

    def download(self) -> None:
        """Queue its copy to the host."""

    def result(self) -> Result:
        """The result, in memory of its own."""


class _DevicePanoptic:
    def __init__(self, image: DeviceImage) -> None:
        self._image = image
        pixels, reserve = image.output_hw[0] * image.output_hw[1], image.buffers.reserve
        self._queries, self._scores = reserve("queries", 4 * image.queries), reserve("scores", 4 * image.queries)
        self._counts, self._ids = reserve("counts", 12 * image.queries), reserve("ids", 8 * image.queries)
        self._codes, self._labels = reserve("codes", 2 * pixels), reserve("labels", 4 * pixels)

    def count(self, class_logits: NDArray[np.float32]) -> None:
        image, stream = self._image, self._image.stream
        self._kept = kept_queries(class_logits, image.thresholds)
        count = len(self._kept.queries)
        if not count:
            return
        stream.send(self._queries, self._kept.queries.astype(np.int32))
        stream.send(self._scores, self._kept.scores)
        image.masks.panoptic(
            count,
            queries=self._queries.address,
            scores=self._scores.address,
            codes=self._codes.address,
            counts=self._counts.address,
            stream=stream.handle,
        )
        self._counted = stream.fetch(self._counts, (count, 3), np.uint32)

    def label(self) -> None:
        image, kept = self._image, self._kept
        if not len(kept.queries):
            return
        ids, self._segments = number_segments(kept, self._counted, image.classes, image.thresholds)
        image.stream.send(self._ids, ids)
        image.masks.relabel(
            ids.size,
            codes=self._codes.address,
            ids=self._ids.address,
            labels=self._labels.address,
            stream=image.stream.handle,
        )

    def download(self) -> None:
        if len(self._kept.queries):
            self._map = self._image.stream.fetch(self._labels, self._image.output_hw, np.int32)

    def result(self) -> Panoptic:
        if not len(self._kept.queries):
            return Panoptic(np.zeros(self._image.output_hw, np.int32), ())
        return Panoptic(self._map.copy(), self._segments)


class _DeviceSemantic:
    def __init__(self, image: DeviceImage) -> None:
        self._image = image
        pixels, reserve = image.output_hw[0] * image.output_hw[1], image.buffers.reserve
        self._weights = reserve("weights", 4 * image.queries * len(image.classes))
        self._labels, self._scores = reserve("labels", 4 * pixels), reserve("best", 4 * pixels)

    def count(self, class_logits: NDArray[np.float32]) -> None:
        """Nothing: no pixel has to be seen to know what to compute."""
        self._image.stream.send(self._weights, class_weights(class_logits))

    def label(self) -> None:
        self._image.masks.semantic(
            len(self._image.classes),
            weights=self._weights.address,
            labels=self._labels.address,
            scores=self._scores.address,
            stream=self._image.stream.handle,
        )

    def download(self) -> None:
        image = self._image
        self._map = image.stream.fetch(self._labels, image.output_hw, np.int32)
        self._score = image.stream.fetch(self._scores, image.output_hw, np.float32)

    def result(self) -> Semantic:
        return Semantic(self._map.copy(), self._score.copy())


class _DeviceInstances:
    def __init__(self, image: DeviceImage) -> None:
        self._image = image
        height, width = image.output_hw
        most, self._words = min(image.queries, image.thresholds.max_instances), bitmap_words(width)
        self._queries = image.buffers.reserve("queries", 4 * most)
        self._stats = image.buffers.reserve("stats", STATS.itemsize * most)
        self._bitmaps = image.buffers.reserve("bitmaps", 4 * most * height * self._words)

    def count(self, class_logits: NDArray[np.float32]) -> None:
        image, stream = self._image, self._image.stream
        self._pairs = best_pairs(class_logits, image.classes, image.thresholds)
        wanted = len(self._pairs.queries)
        self._found = np.empty(0, STATS)
        if wanted:
            stream.send(self._queries, self._pairs.queries.astype(np.int32))
            image.masks.instances(
                wanted,
                queries=self._queries.address,
                bitmaps=self._bitmaps.address,
                stats=self._stats.address,
                stream=stream.handle,
            )
            self._found = stream.fetch(self._stats, (wanted,), STATS)

    def label(self) -> None:
        """Nothing is left to compute; now it is known where the masks lie."""
        self._quality, self._boxes = measure(self._found, self._image.output_hw)

    def download(self) -> None:
        """Of every mask the rows of its box, which lie one after the other."""
        image, row = self._image, 4 * self._words
        tops, bottoms = self._boxes[:, 1], self._boxes[:, 3]
        ends = np.cumsum(bottoms - tops)
        pinned = self._bitmaps.host((int(ends[-1]) if len(ends) else 0, self._words), np.uint32)
        self._rows = np.split(pinned, ends[:-1])
        for index, (rows, top) in enumerate(zip(self._rows, tops.tolist(), strict=False)):
            if len(rows):
                image.stream.download(rows, self._bitmaps.address + (index * image.output_hw[0] + top) * row)

    def result(self) -> Instances:
        boxes = self._boxes.tolist()
        crops = [crop(rows, tuple(box)) for rows, box in zip(self._rows, boxes, strict=False)]
        return rank(self._pairs, self._quality, self._boxes, crops, self._image.output_hw)


DEVICE_TASKS: dict[Task, Callable[[DeviceImage], DeviceTask]] = {
    "panoptic": _DevicePanoptic,
    "instance": _DeviceInstances,
    "semantic": _DeviceSemantic,
}
