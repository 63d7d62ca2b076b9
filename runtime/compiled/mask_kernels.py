"""The compiled post-processing: the C functions of plugins/include/proscale/mask_api.h, called through ctypes.

They do what :mod:`proscale_deploy.runtime.panoptic`, ``semantic`` and ``instances`` do per pixel; what is decided per
query stays there. Labels are equal but where the two best values of a pixel differ by rounding.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError, PluginError
from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.types import Size
from proscale_deploy.runtime.taps import TAP, MaskPlan

__all__ = [
    "LEAST_PIXELS",
    "MOST_CLASSES",
    "MOST_PIXELS",
    "MOST_QUERIES",
    "STATS",
    "DeviceMasks",
    "HostMasks",
    "bitmap_words",
    "crop",
    "measure",
    "supports",
]

MOST_QUERIES: Final = 2048
MOST_CLASSES: Final = 2048
LEAST_PIXELS: Final = 3
"""Of an edge of the masks."""
MOST_PIXELS: Final = 32768
"""Of an edge of the masks or the output."""

STATS: Final = np.dtype(
    [
        ("probability", np.uint64),
        ("count", np.uint32),
        ("right", np.uint32),
        ("bottom", np.uint32),
        ("from_right", np.uint32),
        ("from_bottom", np.uint32),
        ("reserved", np.uint32),
    ]
)
"""``ProscaleMaskStats``: of the positive pixels of one mask."""


def supports(queries: int, classes: int, mask_hw: Size, output_hw: Size) -> bool:
    """Whether the compiled code takes sizes like these; numpy takes all."""
    few = queries <= MOST_QUERIES and classes <= MOST_CLASSES
    return few and min(mask_hw) >= LEAST_PIXELS and max(*mask_hw, *output_hw) <= MOST_PIXELS


def bitmap_words(width: int) -> int:
    """Words of 32 pixels in one row of a bitmap."""
    return -(-width // 32)


class DeviceMasks:
    """The mask logits of one image on the device, and the kernels for them.

    Every method queues its work on a CUDA stream; it allocates nothing and does not wait. Arguments that are addresses
    are those of dense device memory; shapes and types are said for each. Counts are cleared before.

    Args:
        library: libproscale_plugin.so.
        plan: of the placement.
        dtype: of the logits, FLOAT or HALF.
        queries: Q, up to MOST_QUERIES.
        logits: address of (Q, h, w).
        tables: address of a copy of ``plan.tables``.

    Raises:
        InputError: sizes that are not supported.
        PluginError: by every method: the library has no such kernel, or the launch failed; the message holds the number
            of the CUDA error.
    """

    def __init__(
        self, library: Library, plan: MaskPlan, dtype: DType, queries: int, *, logits: int, tables: int
    ) -> None:
        self._library = library
        self._masks = _masks(plan, dtype, queries, logits, tables)

    def count_nonfinite(self, found: int, stream: int) -> None:
        """Write to ``found``, one uint32, how many of the logits are NaN or infinite."""
        masks = self._masks
        count = masks.queries * masks.height * masks.width
        self._launch("count_nonfinite", masks.type, masks.logits, count, found, stream)

    def panoptic(self, kept: int, *, queries: int, scores: int, codes: int, counts: int, stream: int) -> None:
        """Which of ``kept`` >= 1 queries wins each pixel.

        Args:
            kept: N.
            queries: (N,) int32, rising.
            scores: (N,) float32.
            codes: (H, W) int16, written: 2 * winner + whether its mask holds the pixel.
            counts: (N, 3) uint32, written: pixels won but not held; won and held; held, won or not.
            stream: a cudaStream_t.
        """
        self._launch("panoptic", self._masks, _Panoptic(kept, queries, scores, codes, counts), stream)

    def relabel(self, entries: int, *, codes: int, ids: int, labels: int, stream: int) -> None:
        """From ``codes`` (H, W) int16 through ``ids`` (``entries``,) int32 to ``labels`` (H, W) int32."""
        pixels = self._masks.output_height * self._masks.output_width
        self._launch("relabel", codes, pixels, ids, entries, labels, stream)

    def semantic(self, classes: int, *, weights: int, labels: int, scores: int, stream: int) -> None:
        """The best class of every pixel.

        Args:
            classes: K, up to MOST_CLASSES.
            weights: (K, Q) float32.
            labels: (H, W) int32, written.
            scores: (H, W) float32, written; off by 4e-5 at most.
            stream: a cudaStream_t.

        Raises:
            InputError: too many classes.
        """
        _check_classes(classes)
        self._launch("semantic", self._masks, _Semantic(classes, weights, labels, scores), stream)

    def instances(self, wanted: int, *, queries: int, bitmaps: int, stats: int, stream: int) -> None:
        """Where the masks of ``wanted`` >= 1 queries are positive.

        Args:
            wanted: M.
            queries: (M,) int32.
            bitmaps: (M, H, bitmap_words(W)) uint32, written.
            stats: (M,) of STATS, written.
            stream: a cudaStream_t.
        """
        self._launch("instances", self._masks, _Instances(wanted, queries, bitmaps, stats), stream)

    def _launch(self, name: str, *arguments: Any) -> None:
        function = self._library.function(f"proscale_{name}_cuda", [*_ARGUMENTS[name], ctypes.c_void_p])
        if status := function(*arguments):
            masks = self._masks
            raise PluginError(
                f"{self._library.path}: CUDA error {status} when launching {name} for {masks.queries} masks of "
                f"{masks.height}x{masks.width} at {masks.output_height}x{masks.output_width}; 1 says that an argument "
                "is wrong, 209 that the library was not built for this GPU: proscale-deploy plugin build"
            )


class HostMasks:
    """The same on the CPU, with numpy arrays, on all threads that OpenMP gives.

    Args:
        library: libproscale_host.so.
        plan: of the placement.
        masks: (Q, h, w) float32 or float16, finite.

    Raises:
        InputError: masks of another size or type, or of a size that is not supported.
        PluginError: by every method: the library has no such function.
    """

    def __init__(self, library: Library, plan: MaskPlan, masks: NDArray[np.float32] | NDArray[np.float16]) -> None:
        if masks.shape[1:] != plan.mask_hw or masks.dtype not in (np.float32, np.float16):
            raise InputError(
                f"expected masks (queries, {plan.mask_hw[0]}, {plan.mask_hw[1]}) of float32 or float16, "
                f"found {masks.shape} {masks.dtype}"
            )
        self._library, self._plan = library, plan
        self._logits = np.require(masks, requirements=["C", "A"])
        dtype = DType.HALF if masks.dtype == np.float16 else DType.FLOAT
        self._masks = _masks(plan, dtype, len(masks), self._logits.ctypes.data, plan.tables.ctypes.data)

    def count_nonfinite(self) -> int:
        """How many of the logits are NaN or infinite."""
        found = np.empty(1, np.uint32)
        self._call("count_nonfinite", self._masks.type, self._logits, self._logits.size, found)
        return int(found[0])

    def panoptic(
        self, queries: NDArray[np.intp], scores: NDArray[np.float32]
    ) -> tuple[NDArray[np.int16], NDArray[np.uint32]]:
        """Queries (N,) and their scores -> codes (H, W) and counts (N, 3): see :meth:`DeviceMasks.panoptic`."""
        count = len(queries)
        codes, counts = np.empty(self._plan.output_hw, np.int16), np.empty((count, 3), np.uint32)
        arrays = self._checked(queries), np.require(scores, np.float32, ["C", "A"]), codes, counts
        self._call("panoptic", self._masks, _Panoptic(count, *map(_address, arrays)))
        return codes, counts

    def relabel(self, codes: NDArray[np.int16], ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Codes (H, W) -> ``ids[codes]``; all of them must be in ``ids``."""
        labels = np.empty(codes.shape, np.int32)
        self._call("relabel", codes, codes.size, ids, ids.size, labels)
        return labels

    def semantic(self, weights: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Weights (K, Q) -> labels and scores (H, W).

        Raises:
            InputError: weights for other queries, or too many classes.
        """
        _check_classes(len(weights))
        if weights.shape[1:] != (len(self._logits),):
            raise InputError(f"expected weights (classes, {len(self._logits)}), found {weights.shape}")
        labels, scores = np.empty(self._plan.output_hw, np.int32), np.empty(self._plan.output_hw, np.float32)
        arrays = np.require(weights, np.float32, ["C", "A"]), labels, scores
        self._call("semantic", self._masks, _Semantic(len(weights), *map(_address, arrays)))
        return labels, scores

    def instances(self, queries: NDArray[np.intp]) -> tuple[NDArray[np.uint32], NDArray[np.void]]:
        """Queries (M,) -> bitmaps (M, H, words) and stats (M,) of STATS."""
        count, (height, width) = len(queries), self._plan.output_hw
        bitmaps, stats = np.empty((count, height, bitmap_words(width)), np.uint32), np.empty(count, STATS)
        arrays = self._checked(queries), bitmaps, stats
        self._call("instances", self._masks, _Instances(count, *map(_address, arrays)))
        return bitmaps, stats

    def _checked(self, queries: NDArray[np.intp]) -> NDArray[np.int32]:
        if not len(queries) or queries.min() < 0 or queries.max() >= len(self._logits):
            raise InputError(f"expected one or more queries below {len(self._logits)}, found {queries.tolist()}")
        return np.ascontiguousarray(queries, np.int32)

    def _call(self, name: str, *arguments: Any) -> None:
        function = self._library.function(f"proscale_{name}_host", _ARGUMENTS[name])
        plain = [_address(argument) if isinstance(argument, np.ndarray) else argument for argument in arguments]
        if status := function(*plain):
            raise PluginError(f"{self._library.path}: proscale_{name}_host returned {status}: too little memory?")


def measure(stats: NDArray[np.void], output_hw: Size) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Stats (M,) -> mean probability of the positive pixels (M,), and boxes (M, 4): left, top, right, bottom."""
    quality = stats["probability"] / 2.0**24 / (stats["count"] + 1e-6)
    height, width = (np.where(stats["count"], edge, 0) for edge in output_hw)
    left, top = width - stats["from_right"], height - stats["from_bottom"]
    return quality.astype(np.float32), np.stack([left, top, stats["right"], stats["bottom"]], axis=1).astype(np.int32)


def crop(rows: NDArray[np.uint32], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """The mask inside its box: rows ``top`` to ``bottom`` of a bitmap, (bottom - top, words) -> one byte per pixel."""
    left, _, right, _ = box
    first = left // 8
    packed = np.ascontiguousarray(rows, "<u4").view(np.uint8)[:, first : -(-right // 8)]
    pixels = np.unpackbits(packed, axis=1, bitorder="little")
    return np.ascontiguousarray(pixels[:, left - 8 * first : right - 8 * first]).view(np.bool_)


class _Masks(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("type", "samples", "queries", "height", "width")),
        *((name, ctypes.c_int32) for name in ("output_height", "output_width")),
        *((name, ctypes.c_void_p) for name in ("logits", "rows", "columns")),
    )


class _Panoptic(ctypes.Structure):
    _fields_ = (
        ("kept", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("query", "score", "codes", "counts")),
    )


class _Semantic(ctypes.Structure):
    _fields_ = (("classes", ctypes.c_int32), *((name, ctypes.c_void_p) for name in ("weights", "labels", "scores")))


class _Instances(ctypes.Structure):
    _fields_ = (("wanted", ctypes.c_int32), *((name, ctypes.c_void_p) for name in ("query", "bits", "stats")))


_ARGUMENTS: Final[dict[str, list[Any]]] = {
    "panoptic": [ctypes.POINTER(_Masks), ctypes.POINTER(_Panoptic)],
    "semantic": [ctypes.POINTER(_Masks), ctypes.POINTER(_Semantic)],
    "instances": [ctypes.POINTER(_Masks), ctypes.POINTER(_Instances)],
    "relabel": [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p],
    "count_nonfinite": [ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p],
}
"""Of the functions, without the stream."""


def _masks(plan: MaskPlan, dtype: DType, queries: int, logits: int, tables: int) -> _Masks:
    if not supports(queries, 1, plan.mask_hw, plan.output_hw):
        (height, width), (output_height, output_width) = plan.mask_hw, plan.output_hw
        raise InputError(
            f"expected up to {MOST_QUERIES} queries, and {LEAST_PIXELS} to {MOST_PIXELS} pixels along an edge; found "
            f"{queries} masks of {height}x{width} for an output of {output_height}x{output_width}"
        )
    columns = tables + TAP.itemsize * plan.output_hw[0]
    return _Masks(dtype, plan.samples, queries, *plan.mask_hw, *plan.output_hw, logits, tables, columns)


def _check_classes(classes: int) -> None:
    if classes > MOST_CLASSES:
        raise InputError(f"expected up to {MOST_CLASSES} classes, found {classes}")


def _address(array: NDArray[Any]) -> int:
    return array.ctypes.data
