"""Panoptic maps: every pixel goes to the query with the greatest class score times mask probability.

The rules are those of ``MaskFormer.panoptic_inference`` in Mask2Former. A tile whose bounds leave one possible winner,
and no doubt about the sign of its logits, is settled as a whole; in the others the contenders compete pixel by pixel.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo, Panoptic, Placement, RawOutput, Segment, Thresholds
from proscale_deploy.runtime.logits import check_raw_output, sigmoid, softmax
from proscale_deploy.runtime.tiles import tile_grid

__all__ = ["Kept", "kept_queries", "number_segments", "panoptic"]


def panoptic(raw: RawOutput, placement: Placement, classes: tuple[ClassInfo, ...], thresholds: Thresholds) -> Panoptic:
    """The panoptic map at the source size; segments of one stuff class are merged and carry the best of their scores.

    Raises:
        InputError: ``raw`` does not fit ``placement`` or ``classes``; NaN or infinite logits.
    """
    check_raw_output(raw, placement, classes)
    kept = kept_queries(raw.class_logits, thresholds)
    if not len(kept.queries):
        return Panoptic(np.zeros(placement.source_hw, np.int32), ())
    codes, areas = _compete(raw.mask_logits[kept.queries], kept.scores, placement)
    won = np.bincount(codes.ravel(), minlength=2 * len(areas)).reshape(-1, 2)
    ids, segments = number_segments(kept, np.column_stack([won, areas]), classes, thresholds)
    return Panoptic(ids.ravel().take(codes), segments)


@dataclass(frozen=True)
class Kept:
    """The N queries that compete for pixels."""

    queries: NDArray[np.intp]
    """(N,) rising."""
    classes: NDArray[np.intp]
    """(N,) the best class of each."""
    scores: NDArray[np.float32]
    """(N,) its probability."""


def kept_queries(class_logits: NDArray[np.float32], thresholds: Thresholds) -> Kept:
    """The queries that are sure enough of a class, from (Q, K+1) logits."""
    probabilities = softmax(class_logits)
    classes, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    kept = np.flatnonzero((classes != class_logits.shape[1] - 1) & (scores > thresholds.object_mask))
    return Kept(kept, classes[kept], scores[kept])


def number_segments(
    kept: Kept, counts: NDArray[np.integer[Any]], classes: tuple[ClassInfo, ...], thresholds: Thresholds
) -> tuple[NDArray[np.int32], tuple[Segment, ...]]:
    """Which queries become segments.

    Args:
        kept: N queries.
        counts: (N, 3) pixels of each: won where its mask does not hold them, won where it does, held whether won or
            not.
        classes: in the order of the logits.
        thresholds: how much of a mask must be visible.

    Returns:
        (N, 2) what to write into the map where a query has won without and with its mask; the segments.
    """
    ids = np.zeros((len(counts), 2), np.int32)
    segments: list[Segment] = []
    stuff_ids: dict[int, int] = {}
    candidates = zip(kept.classes.tolist(), kept.scores.tolist(), counts.tolist(), strict=True)
    for query, (label, score, (hidden, visible, held)) in enumerate(candidates):
        if visible == 0 or (hidden + visible) / held < thresholds.overlap:
            continue
        if label in stuff_ids:
            number = stuff_ids[label]
            merged = segments[number - 1]
            area, score = merged.area + visible, max(merged.score, score)
            segments[number - 1] = Segment(number, label, is_thing=False, area=area, score=score)
        else:
            number = len(segments) + 1
            segments.append(Segment(number, label, classes[label].is_thing, visible, score))
            if not classes[label].is_thing:
                stuff_ids[label] = number
        ids[query, 1] = number
    return ids, tuple(segments)


def _compete(
    masks: NDArray[np.float32], scores: NDArray[np.float32], placement: Placement
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Who wins each pixel.

    A mask holds a pixel where sigmoid(logit) >= 0.5, that is where logit >= 0.

    Args:
        masks: (N, h, w) logits.
        scores: (N,) class scores.
        placement: gives the size of the output.

    Returns:
        (H, W), 2 * winner + 1 where the winner's mask holds the pixel and 2 * winner where not; the first of equals
        wins. (N,) pixels that each mask holds, won or not.
    """
    grid = tile_grid(masks.shape[1:], placement)
    least, greatest = grid.bounds(masks)
    # The margin is a few times the rounding error of a float32 product.
    sure = (scores[:, None] * sigmoid(least)).max(axis=0) * np.float32(1 - 1e-6)
    contends = scores[:, None] * sigmoid(greatest) >= sure
    contested = np.count_nonzero(contends, axis=0) > 1
    holds = least >= 0
    crossed = ~holds & (greatest >= 0)

    leader = contends.argmax(axis=0)
    codes = np.empty(grid.valid.shape, np.int16)
    codes[:] = (2 * leader + holds[leader, np.arange(len(grid))])[:, None, None]
    areas = holds @ np.count_nonzero(grid.valid, axis=(1, 2))
    best = np.full(grid.valid.shape, -1, np.float32)
    for query in range(len(masks)):
        tiles = np.flatnonzero(contends[query] & contested | crossed[query])
        logits = grid.logits(masks, query, tiles)
        held = logits >= 0
        areas[query] += np.count_nonzero((held & grid.valid[tiles])[crossed[query, tiles]])

        contending = contends[query, tiles]
        tiles, held = tiles[contending], held[contending]
        value = scores[query] * sigmoid(logits[contending])
        wins = value > best[tiles]
        best[tiles] = np.where(wins, value, best[tiles])
        codes[tiles] = np.where(wins, 2 * query + held, codes[tiles])
    return grid.join(codes), areas
