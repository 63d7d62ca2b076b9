"""The kernels for frames and masks in numpy, over the stand-ins for CUDA: dense, slow and short."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy.core.native import DType
from proscale_deploy.core.types import InputSpec
from proscale_deploy.runtime import segmenter
from proscale_deploy.runtime.compiled.frame_kernels import ResizePlan
from proscale_deploy.runtime.compiled.mask_kernels import STATS, bitmap_words
from proscale_deploy.runtime.gpu import device_pipeline
from proscale_deploy.runtime.preprocess import preprocess
from proscale_deploy.runtime.taps import MaskPlan

TYPES = {DType.FLOAT: np.float32, DType.HALF: np.float16}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segmenters find these kernels."""
    monkeypatch.setattr(segmenter, "find_kernels", lambda session: "no library")
    monkeypatch.setattr(device_pipeline, "preprocess_device", preprocess_device)
    monkeypatch.setattr(device_pipeline, "DeviceMasks", NumpyMasks)


def preprocess_device(
    library: object,
    plan: ResizePlan,
    spec: InputSpec,
    dtype: DType,
    *,
    frame: int,
    pitch: int,
    tables: int,
    output: int,
    stream: int,
) -> None:
    def work() -> None:
        assert pitch == 3 * plan.placement.source_hw[1]
        np.testing.assert_array_equal(at(tables, plan.tables.shape, np.int32), plan.tables)
        image, placement = preprocess(at(frame, (*plan.placement.source_hw, 3), np.uint8), spec)
        assert placement == plan.placement
        at(output, image.shape, TYPES[dtype])[...] = image

    queue(stream, work)


class NumpyMasks:
    """See :class:`proscale_deploy.runtime.compiled.mask_kernels.DeviceMasks`."""

    def __init__(
        self, library: object, plan: MaskPlan, dtype: DType, queries: int, *, logits: int, tables: int
    ) -> None:
        self._plan, self._tables = plan, tables
        self._masks = lambda: at(logits, (queries, *plan.mask_hw), TYPES[dtype]).astype(np.float32)
        self._queries = queries

    def count_nonfinite(self, found: int, stream: int) -> None:
        def work() -> None:
            at(found, (1,), np.uint32)[0] = np.count_nonzero(~np.isfinite(self._masks()))

        queue(stream, work)

    def panoptic(self, kept: int, *, queries: int, scores: int, codes: int, counts: int, stream: int) -> None:
        def work() -> None:
            logits = self._samples(self._masks()[at(queries, (kept,), np.int32)], 0, 0)
            winner = (at(scores, (kept,), np.float32)[:, None, None] * sigmoid(logits)).argmax(axis=0)
            holds = np.take_along_axis(logits, winner[None], 0)[0] >= 0
            at(codes, winner.shape, np.int16)[...] = 2 * winner + holds
            won = np.bincount((2 * winner + holds).ravel(), minlength=2 * kept).reshape(-1, 2)
            at(counts, (kept, 3), np.uint32)[...] = np.column_stack([won, (logits >= 0).sum(axis=(1, 2))])

        queue(stream, work)

    def relabel(self, entries: int, *, codes: int, ids: int, labels: int, stream: int) -> None:
        def work() -> None:
            shape = self._plan.output_hw
            at(labels, shape, np.int32)[...] = at(ids, (entries,), np.int32)[at(codes, shape, np.int16)]

        queue(stream, work)

    def semantic(self, classes: int, *, weights: int, labels: int, scores: int, stream: int) -> None:
        def work() -> None:
            masks, (rows, columns) = self._masks(), self._taps()
            total: Any = 0
            for y, share_y in enumerate((1 - rows["share"], rows["share"])):
                for x, share_x in enumerate((1 - columns["share"], columns["share"])):
                    total = total + sigmoid(self._samples(masks, y, x)) * share_y[:, None] * share_x
            total = np.tensordot(at(weights, (classes, self._queries), np.float32), total, 1)
            at(labels, self._plan.output_hw, np.int32)[...] = total.argmax(axis=0)
            at(scores, self._plan.output_hw, np.float32)[...] = total.max(axis=0)

        queue(stream, work)

    def instances(self, wanted: int, *, queries: int, bitmaps: int, stats: int, stream: int) -> None:
        def work() -> None:
            height, width = self._plan.output_hw
            logits = self._samples(self._masks()[at(queries, (wanted,), np.int32)], 0, 0)
            found, words = at(stats, (wanted,), STATS), bitmap_words(width)
            bits = np.zeros((wanted, height, 32 * words), np.bool_)
            bits[..., :width] = logits > 0
            packed = np.packbits(bits, axis=2, bitorder="little")
            at(bitmaps, packed.shape, np.uint8)[...] = packed
            for index, mask in enumerate(logits):
                rows, columns = np.nonzero(mask > 0)
                probability = np.rint(sigmoid(mask[mask > 0]).astype(np.float64) * (1 << 24)).sum()
                right, bottom = columns.max(initial=-1) + 1, rows.max(initial=-1) + 1
                left, top = columns.min(initial=width), rows.min(initial=height)
                found[index] = (probability, len(rows), right, bottom, width - left, height - top, 0)

        queue(stream, work)

    def _taps(self) -> tuple[NDArray[np.void], NDArray[np.void]]:
        np.testing.assert_array_equal(
            at(self._tables, self._plan.tables.shape, self._plan.tables.dtype), self._plan.tables
        )
        height = self._plan.output_hw[0]
        return self._plan.tables[:height], self._plan.tables[height:]

    def _samples(self, masks: NDArray[np.float32], y: int, x: int) -> NDArray[np.float32]:
        """(Q, h, w) -> (Q, H, W), at the samples of one number."""
        matrices = []
        for taps, number, size in zip(self._taps(), (y, x), self._plan.mask_hw, strict=True):
            matrix = np.zeros((len(taps), size + 2), np.float32)
            matrix[np.arange(len(taps))[:, None], taps["first"][:, None] + np.arange(3)] = taps["weight"][:, number]
            matrices.append(matrix[:, :size])
        return matrices[0] @ masks @ matrices[1].T


def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return 1 / (1 + np.exp(-x))


def at(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    memory = (ctypes.c_char * (int(np.prod(shape)) * np.dtype(dtype).itemsize)).from_address(address)
    return np.frombuffer(memory, dtype).reshape(shape)


def queue(stream: int, work: Callable[[], None]) -> None:
    import pycuda.driver

    pycuda.driver.STREAMS[stream].add(work)
