"""Instances: the best (query, class) pairs, scored by class probability times mean mask probability.

The rules are those of ``MaskFormer.instance_inference`` in Mask2Former. Each mask is computed once, whatever number of
classes it is paired with, and only in the tiles where a logit can be positive.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo, Instances, Placement, RawOutput, Size, Thresholds
from proscale_deploy.runtime.logits import check_raw_output, sigmoid, softmax
from proscale_deploy.runtime.tiles import tile_grid

__all__ = ["Pairs", "best_pairs", "instances", "rank"]


def instances(
    raw: RawOutput, placement: Placement, classes: tuple[ClassInfo, ...], thresholds: Thresholds
) -> Instances:
    """Up to ``thresholds.max_instances`` instances at the source size, by falling score, equal scores by class.

    Of a panoptic model only the things among the best pairs are kept. Pairs of one query share their crop.

    Raises:
        InputError: ``raw`` does not fit ``placement`` or ``classes``; NaN or infinite logits.
    """
    check_raw_output(raw, placement, classes)
    pairs = best_pairs(raw.class_logits, classes, thresholds)
    masks = raw.mask_logits[pairs.queries]
    grid = tile_grid(masks.shape[1:], placement)
    may_be_positive = grid.bounds(masks)[1] > 0
    quality = np.empty(len(masks), np.float32)
    boxes = np.empty((len(masks), 4), np.int32)
    crops = []
    for index in range(len(masks)):
        tiles = np.flatnonzero(may_be_positive[index])
        logits = grid.logits(masks, index, tiles)
        inside = (logits > 0) & grid.valid[tiles]
        total = (sigmoid(logits) * inside).sum(dtype=np.float64)
        quality[index] = total / (np.count_nonzero(inside) + 1e-6)
        boxes[index], crop = grid.crop(inside, tiles)
        crops.append(crop)
    return rank(pairs, quality, boxes, crops, placement.source_hw)


@dataclass(frozen=True)
class Pairs:
    """The best P pairs of a query and a class, by falling probability, and the M queries among them."""

    queries: NDArray[np.intp]
    """(M,) rising: whose masks are wanted."""
    mask_of_pair: NDArray[np.intp]
    """(P,) positions in ``queries``."""
    classes: NDArray[np.intp]
    """(P,)"""
    probabilities: NDArray[np.float32]
    """(P,)"""


def best_pairs(class_logits: NDArray[np.float32], classes: tuple[ClassInfo, ...], thresholds: Thresholds) -> Pairs:
    """Up to ``thresholds.max_instances`` pairs from (Q, K+1) logits, of a panoptic model the things among them."""
    probabilities = softmax(class_logits)[:, :-1]
    pairs = np.argsort(-probabilities, axis=None, kind="stable")[: thresholds.max_instances]
    queries, labels = np.divmod(pairs, len(classes))
    if "panoptic" in thresholds.tasks:
        is_thing = np.array([info.is_thing for info in classes])[labels]
        queries, labels = queries[is_thing], labels[is_thing]
    wanted, mask_of_pair = np.unique(queries, return_inverse=True)
    return Pairs(wanted, mask_of_pair, labels, probabilities[queries, labels])


def rank(
    pairs: Pairs,
    quality: NDArray[np.float32],
    boxes: NDArray[np.int32],
    crops: Sequence[NDArray[np.bool_]],
    size: Size,
) -> Instances:
    """Pairs, and what their M masks came to, -> instances by falling score, equal scores by class.

    Args:
        pairs: P pairs.
        quality: (M,) mean probability of the positive pixels.
        boxes: (M, 4) left, top, right, bottom.
        crops: M masks inside their boxes.
        size: of the frame.
    """
    scores = pairs.probabilities * quality[pairs.mask_of_pair]
    order = np.lexsort((pairs.classes, -scores))
    shown = pairs.mask_of_pair[order]
    return Instances(size, scores[order], pairs.classes[order], boxes[shown], tuple(crops[index] for index in shown))
