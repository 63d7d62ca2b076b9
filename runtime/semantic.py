"""Semantic maps: at every pixel the class with the greatest sum of class probability times mask probability.

The rules are those of ``MaskFormer.semantic_inference`` in Mask2Former. The bounds of the mask probabilities in a tile
bound the sum of every class. Most tiles are settled for one class before any pixel is computed: there that class alone
is summed, over the queries whose change within the tile can move its score. In the other tiles all queries are summed,
for the classes that may win.
"""

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo, Placement, RawOutput, Semantic, Thresholds
from proscale_deploy.runtime.logits import check_raw_output, sigmoid, softmax
from proscale_deploy.runtime.tiles import tile_grid

__all__ = ["semantic"]

_CHUNK = 1 << 20
"""Samples (query, tile, pixel) computed at once: what stays in the cache."""

_SCORE_ERROR = 2e-5
"""By how much a score may be off where the class is settled; never where classes compete."""


def semantic(raw: RawOutput, placement: Placement, classes: tuple[ClassInfo, ...], thresholds: Thresholds) -> Semantic:
    """The semantic map at the source size; of equal classes the first wins.

    Raises:
        InputError: ``raw`` does not fit ``placement`` or ``classes``; NaN or infinite logits.
    """
    check_raw_output(raw, placement, classes)
    masks = raw.mask_logits
    weights = np.ascontiguousarray(softmax(raw.class_logits)[:, :-1].T)  # (K, Q)
    grid = tile_grid(masks.shape[1:], placement, thresholds.resize_masks_first)
    least, greatest = map(sigmoid, grid.bounds(masks))
    # The margin is a few times the rounding error of a float32 sum over the queries.
    sure = (weights @ least).max(axis=0) * np.float32(1 - 1e-5)
    may_win = weights @ greatest >= sure
    middle, reach = (greatest + least) / 2, (greatest - least) / 2

    labels = np.empty(grid.valid.shape, np.int32)
    scores = np.empty(grid.valid.shape, np.float32)
    for tiles in _chunks(may_win, max(1, _CHUNK // (len(masks) * grid.samples_per_tile))):
        contenders = np.flatnonzero(may_win[:, tiles].any(axis=1))
        weight = weights[contenders]
        # Queries that hardly change within these tiles are replaced by the middle of their bounds.
        error = (weight.max(axis=0)[:, None] * reach[:, tiles]).max(axis=1)
        order = error.argsort()
        negligible = error[order].cumsum() <= (_SCORE_ERROR if len(contenders) == 1 else 0)
        steady, varying = order[negligible], order[~negligible]

        probabilities = sigmoid(grid.logits(masks, varying, tiles))
        total = np.tensordot(weight[:, varying], probabilities, 1)
        total += (weight[:, steady] @ middle[np.ix_(steady, tiles)])[:, :, None, None]
        total = grid.pixels(total, tiles)
        labels[tiles] = contenders[total.argmax(axis=0)]
        scores[tiles] = total.max(axis=0)
    return Semantic(grid.join(labels), grid.join(scores))


def _chunks(may_win: NDArray[np.bool_], size: int) -> list[NDArray[np.intp]]:
    """Tiles in groups that share their work: settled for the same class, or with about as many contenders.

    Args:
        may_win: (K, n) whether a class may win somewhere in a tile.
        size: tiles in a group, at most.
    """
    contenders = np.count_nonzero(may_win, axis=0)
    settled = np.where(contenders == 1, may_win.argmax(axis=0), -1)
    order = np.lexsort((settled, contenders))
    runs = np.split(order, np.flatnonzero(np.diff(settled[order])) + 1)
    return [run[start : start + size] for run in runs for start in range(0, len(run), size)]
