"""The compiled post-processing: the C functions of plugins/include/proscale/mask_api.h, called through ctypes.

They do what :mod:`proscale_deploy.runtime.panoptic`, ``semantic`` and ``instances`` do per pixel;
what is decided per query stays there. Labels are equal but where the two best values of a pixel differ by rounding.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.types import Size
from proscale_deploy.runtime.taps import MaskPlan

__all__ = ["MOST_CLASSES", "MOST_QUERIES", "STATS", "DeviceMasks", "HostMasks", "bitmap_words", "crop", "measure"]

MOST_QUERIES: Final = 2048
MOST_CLASSES: Final = 2048
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
        tables: address of a copy of ``plan.tables``, aligned to 16 bytes.

    Raises:
        PluginError: by every method: the library has no such kernel, or the launch failed; the message holds the number
            of the CUDA error.
        InputError: by every method: sizes beyond what the kernels support.
    """

    def __init__(
        self, library: Library, plan: MaskPlan, dtype: DType, queries: int, *, logits: int, tables: int
    ) -> None:
        raise NotImplementedError

    def count_nonfinite(self, found: int, stream: int) -> None:
        """Write to ``found``, one uint32, how many of the logits are NaN or infinite."""
        raise NotImplementedError

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
        raise NotImplementedError

    def relabel(self, entries: int, *, codes: int, ids: int, labels: int, stream: int) -> None:
        """From ``codes`` (H, W) int16 through ``ids`` (``entries``,) int32 to ``labels`` (H, W) int32."""
        raise NotImplementedError

    def semantic(self, classes: int, *, weights: int, labels: int, scores: int, stream: int) -> None:
        """The best class of every pixel.

        Args:
            classes: K, up to MOST_CLASSES.
            weights: (K, Q) float32.
            labels: (H, W) int32, written.
            scores: (H, W) float32, written; off by 4e-5 at most.
            stream: a cudaStream_t.
        """
        raise NotImplementedError

    def instances(self, wanted: int, *, queries: int, bitmaps: int, stats: int, stream: int) -> None:
        """Where the masks of ``wanted`` >= 1 queries are positive.

        Args:
            wanted: M.
            queries: (M,) int32.
            bitmaps: (M, H, bitmap_words(W)) uint32, written.
            stats: (M,) of STATS, written.
            stream: a cudaStream_t.
        """
        raise NotImplementedError


class HostMasks:
    """The same on the CPU, with numpy arrays, on all threads that OpenMP gives.

    Args:
        library: libproscale_host.so.
        plan: of the placement.
        masks: (Q, h, w) float32 or float16, finite.

    Raises:
        InputError: the masks are of another size or type, or too many.
        PluginError: by every method: the library has no such function.
    """

    def __init__(self, library: Library, plan: MaskPlan, masks: NDArray[np.float32] | NDArray[np.float16]) -> None:
        raise NotImplementedError

    def count_nonfinite(self) -> int:
        """How many of the logits are NaN or infinite."""
        raise NotImplementedError

    def panoptic(
        self, queries: NDArray[np.intp], scores: NDArray[np.float32]
    ) -> tuple[NDArray[np.int16], NDArray[np.uint32]]:
        """Queries (N,) and their scores -> codes (H, W) and counts (N, 3): see :meth:`DeviceMasks.panoptic`."""
        raise NotImplementedError

    def relabel(self, codes: NDArray[np.int16], ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Codes (H, W) -> ``ids[codes]``."""
        raise NotImplementedError

    def semantic(self, weights: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Weights (K, Q) -> labels and scores (H, W)."""
        raise NotImplementedError

    def instances(self, queries: NDArray[np.intp]) -> tuple[NDArray[np.uint32], NDArray[np.void]]:
        """Queries (M,) -> bitmaps (M, H, words) and stats (M,) of STATS."""
        raise NotImplementedError


def measure(stats: NDArray[np.void], output_hw: Size) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Stats (M,) -> mean probability of the positive pixels (M,), and boxes (M, 4): left, top, right, bottom."""
    raise NotImplementedError


def crop(bitmap: NDArray[np.uint32], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Rows ``top`` to ``bottom`` of one bitmap, (bottom - top, words) -> the mask inside the box, 1 byte per pixel."""
    raise NotImplementedError
