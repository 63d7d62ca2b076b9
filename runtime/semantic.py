"""Semantic maps: at every pixel the class with the greatest sum of class probability times mask probability.

The rules are those of ``MaskFormer.semantic_inference`` in Mask2Former. The bounds of the mask probabilities in a tile
bound the sum of every class, and one class or a few lead. Only these are summed, and over those queries only whose
change within the tile can move a sum by more than a tolerance. What was left out is checked afterwards: tiles where
another class, or the tolerance, could change the winner are summed again in full. So the winner is always exact.
"""

import math

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo, Placement, RawOutput, Semantic, Thresholds
from proscale_deploy.runtime.logits import check_raw_output, sigmoid, softmax
from proscale_deploy.runtime.tiles import TileGrid, tile_grid

__all__ = ["class_weights", "semantic"]

_TOLERANCE = 4e-5
"""By how much the score of a winner may be off."""

_LEADING = 0.25
"""A class leads a tile if it may reach this share of what any class may reach there."""

_CHUNK = 1 << 20
"""Samples (query, tile, pixel) computed at once, at most: what stays in the cache."""


def semantic(raw: RawOutput, placement: Placement, classes: tuple[ClassInfo, ...], thresholds: Thresholds) -> Semantic:
    """The semantic map at the source size; of equal classes the first wins.

    Raises:
        InputError: ``raw`` does not fit ``placement`` or ``classes``; NaN or infinite logits.
    """
    check_raw_output(raw, placement, classes)
    grid = tile_grid(raw.mask_logits.shape[1:], placement, thresholds.resize_masks_first)
    sums = _ClassSums(raw, grid)
    labels = np.empty(grid.valid.shape, np.int32)
    scores = np.empty(grid.valid.shape, np.float32)
    for tiles in sums.chunks():
        tried = np.flatnonzero(sums.leads[:, tiles].any(axis=1))
        total = sums.sum(tried, tiles, _TOLERANCE)
        best = total.max(axis=0)
        labels[tiles], scores[tiles] = tried[total.argmax(axis=0)], best

        doubtful = tiles[sums.in_doubt(tried, tiles, total, best)]
        if len(doubtful):
            tried = np.flatnonzero(sums.may_win[:, doubtful].any(axis=1))
            total = sums.sum(tried, doubtful, tolerance=0)
            labels[doubtful], scores[doubtful] = tried[total.argmax(axis=0)], total.max(axis=0)
    return Semantic(grid.join(labels), grid.join(scores))


def class_weights(class_logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """What each query's mask counts for each class: (Q, K+1) logits -> (K, Q) probabilities, "no object" left out."""
    return np.ascontiguousarray(softmax(class_logits)[:, :-1].T)


class _ClassSums:
    """Sums over the queries for K classes in n tiles, and what is known of them beforehand."""

    def __init__(self, raw: RawOutput, grid: TileGrid) -> None:
        self._grid = grid
        self._masks = raw.mask_logits
        self._weights = class_weights(raw.class_logits)
        least, greatest = map(sigmoid, grid.bounds(self._masks))
        # Mask probabilities (Q, n) are middle +- reach.
        self._middle, self._reach = (greatest + least) / 2, (greatest - least) / 2
        # The margin is a few times the rounding error of a float32 sum over the queries.
        self._greatest: NDArray[np.float32] = self._weights @ greatest * np.float32(1 + 1e-5)
        self.may_win: NDArray[np.bool_] = self._greatest >= (self._weights @ least).max(axis=0)
        """(K, n)"""
        self.leads = self.may_win & (self._greatest >= _LEADING * self._greatest.max(axis=0))
        """(K, n)"""

    def chunks(self) -> list[NDArray[np.intp]]:
        """All tiles in groups that share their work: led by the same class alone, or by several."""
        leader = self._greatest.argmax(axis=0)
        alone = np.where(np.count_nonzero(self.leads, axis=0) == 1, leader, -1)
        order = np.lexsort((leader, alone))
        runs = np.split(order, np.flatnonzero(np.diff(alone[order])) + 1)
        size = max(1, _CHUNK // (len(self._masks) * self._grid.samples_per_tile))
        return [run[start : start + size] for run in runs for start in range(0, len(run), size)]

    def sum(self, classes: NDArray[np.intp], tiles: NDArray[np.intp], tolerance: float) -> NDArray[np.float32]:
        """Scores (c, t, T, T) of c classes in t tiles, off by ``tolerance`` at most.

        Queries that hardly change within the tiles are replaced by the middle of their bounds.
        """
        weights = self._weights[classes]
        error = (weights.max(axis=0)[:, None] * self._reach[:, tiles]).max(axis=1)
        order = error.argsort()
        negligible = error[order].cumsum() <= tolerance
        steady, varying = order[negligible], order[~negligible]
        probabilities = sigmoid(self._grid.logits(self._masks, varying, tiles))
        shape = probabilities.shape[1:]
        total = _product(weights[:, varying], probabilities.reshape(len(varying), math.prod(shape)))
        total = total.reshape(len(classes), *shape)
        total += (weights[:, steady] @ self._middle[np.ix_(steady, tiles)])[:, :, None, None]
        return self._grid.pixels(total, tiles)

    def in_doubt(
        self,
        tried: NDArray[np.intp],
        tiles: NDArray[np.intp],
        total: NDArray[np.float32],
        best: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        """(t,) whether ``best``, of ``total`` over the classes ``tried``, may not be the best of all classes."""
        # Each of two sums may be off by the tolerance, and by rounding.
        floor = best - np.float32(2.5 * _TOLERANCE)
        close = (np.count_nonzero(total >= floor, axis=0) > 1).any(axis=(1, 2))
        untried = self.may_win[:, tiles] & (self._greatest[:, tiles] >= floor.min(axis=(1, 2)))
        untried[tried] = False
        doubtful: NDArray[np.bool_] = close | untried.any(axis=0)
        return doubtful


def _product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """a (m, k) @ b (k, n), in columns so few that OpenBLAS (its threshold: m n k = 2^18) does not start threads.

    They gain little here, and where other work keeps the cores busy, each call was measured to wait 20 ms for them.
    """
    product = np.empty((len(a), b.shape[1]), np.float32)
    step = max(1, (1 << 18) // max(1, a.size))
    for start in range(0, b.shape[1], step):
        np.matmul(a, b[:, start : start + step], out=product[:, start : start + step])
    return product
