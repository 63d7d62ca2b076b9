"""The CUDA kernels of post-processing, run on the CPU: the methods of ``HostMasks``."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from proscale_deploy.core.native import DType
from proscale_deploy.core.types import Size
from proscale_deploy.runtime.compiled.mask_kernels import STATS, bitmap_words
from proscale_deploy.runtime.taps import MaskPlan
from support.emulator import Sanitizer, program, run

__all__ = ["EmulatedMasks"]

MOST_ARRAYS = 6
"""Of tests/plugins/emulator/masks.cpp."""


class What(IntEnum):
    """The launcher, in the order of masks.cpp."""

    PANOPTIC = 0
    SEMANTIC = 1
    INSTANCES = 2
    RELABEL = 3
    COUNT_NONFINITE = 4


class EmulatedMasks:
    """One image's mask logits (Q, h, w), float32 or float16, on the machine that stands in for a GPU.

    ``offset``: bytes by which the logits miss an alignment of 256. Methods raise KernelError where a kernel fails, and
    RuntimeError where the launcher refuses.
    """

    def __init__(
        self,
        plan: MaskPlan,
        masks: NDArray[np.float32] | NDArray[np.float16],
        *,
        seed: int = 2,
        sanitizer: Sanitizer = "none",
        offset: int = 0,
    ) -> None:
        self._plan, self._masks = plan, masks
        self._seed, self._sanitizer, self._offset = seed, sanitizer, offset

    def count_nonfinite(self) -> int:
        (found,) = self._launch(What.COUNT_NONFINITE, 0, [self._masks], [((1,), np.uint32)])
        return int(found[0])

    def panoptic(
        self, queries: NDArray[np.intp], scores: NDArray[np.float32]
    ) -> tuple[NDArray[np.int16], NDArray[np.uint32]]:
        inputs = [self._masks, self._plan.tables, queries.astype(np.int32), scores]
        count = len(queries)
        codes, counts = self._launch(
            What.PANOPTIC, count, inputs, [(self._plan.output_hw, np.int16), ((count, 3), np.uint32)]
        )
        return codes, counts

    def relabel(self, codes: NDArray[np.int16], ids: NDArray[np.int32]) -> NDArray[np.int32]:
        return self._launch(What.RELABEL, ids.size, [codes, ids], [(codes.shape, np.int32)])[0]

    def semantic(self, weights: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        size = self._plan.output_hw
        labels, scores = self._launch(
            What.SEMANTIC,
            len(weights),
            [self._masks, self._plan.tables, weights],
            [(size, np.int32), (size, np.float32)],
        )
        return labels, scores

    def instances(self, queries: NDArray[np.intp]) -> tuple[NDArray[np.uint32], NDArray[np.void]]:
        count, (height, width) = len(queries), self._plan.output_hw
        inputs = [self._masks, self._plan.tables, queries.astype(np.int32)]
        outputs: list[tuple[Size, DTypeLike]] = [((count, height, bitmap_words(width)), np.uint32), ((count,), STATS)]
        bitmaps, stats = self._launch(What.INSTANCES, count, inputs, outputs)
        return bitmaps, stats

    def _launch(
        self, what: What, count: int, inputs: list[NDArray[Any]], outputs: list[tuple[tuple[int, ...], DTypeLike]]
    ) -> list[NDArray[Any]]:
        types = [np.dtype(dtype) for _, dtype in outputs]
        sizes = [int(np.prod(shape)) * dtype.itemsize for (shape, _), dtype in zip(outputs, types, strict=True)]
        dtype = DType.HALF if self._masks.dtype == np.float16 else DType.FLOAT
        given = [array.nbytes for array in inputs] + sizes
        header = struct.pack(
            f"4i 7i 4x 3P 2i {MOST_ARRAYS}i",
            *(what, self._seed, count, self._offset),
            *(dtype, self._plan.samples, *self._masks.shape, *self._plan.output_hw, 0, 0, 0),
            *(len(inputs), len(outputs)),
            *(given + [0] * (MOST_ARRAYS - len(given))),
        )
        command = [str(program("emulate_masks", self._sanitizer))]
        answer = run(command, b"".join([header, *(array.tobytes() for array in inputs)]))
        if status := struct.unpack_from("i", answer)[0]:
            raise RuntimeError(f"CUDA error {status}")
        arrays, offset = [], 4
        for (shape, _), dtype, size in zip(outputs, types, sizes, strict=True):
            arrays.append(np.frombuffer(answer[offset : offset + size], dtype).reshape(shape))
            offset += size
        return arrays
