"""Instances: the best (query, class) pairs, scored by class probability times mean mask probability.

The rules are those of ``MaskFormer.instance_inference`` in Mask2Former. Each mask is computed once, whatever number of
classes it is paired with, and only in the tiles where a logit can be positive.
"""

import numpy as np

from proscale_deploy.core.types import ClassInfo, Instances, Placement, RawOutput, Thresholds
from proscale_deploy.runtime.logits import check_raw_output, sigmoid, softmax
from proscale_deploy.runtime.tiles import tile_grid

__all__ = ["instances"]


def instances(
    raw: RawOutput, placement: Placement, classes: tuple[ClassInfo, ...], thresholds: Thresholds
) -> Instances:
    """Up to ``thresholds.max_instances`` instances at the source size, by falling score, equal scores by class.

    Of a panoptic model only the things among the best pairs are kept. Pairs of one query share their crop.

    Raises:
        InputError: ``raw`` does not fit ``placement`` or ``classes``; NaN or infinite logits.
    """
    check_raw_output(raw, placement, classes)
    probabilities = softmax(raw.class_logits)[:, :-1]
    pairs = np.argsort(-probabilities, axis=None, kind="stable")[: thresholds.max_instances]
    queries, labels = np.divmod(pairs, len(classes))
    if "panoptic" in thresholds.tasks:
        is_thing = np.array([info.is_thing for info in classes])[labels]
        queries, labels = queries[is_thing], labels[is_thing]

    masks_wanted, mask_of_pair = np.unique(queries, return_inverse=True)
    masks = raw.mask_logits[masks_wanted]
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

    scores = probabilities[queries, labels] * quality[mask_of_pair]
    order = np.lexsort((labels, -scores))
    shown = mask_of_pair[order]
    return Instances(
        placement.source_hw, scores[order], labels[order], boxes[shown], tuple(crops[index] for index in shown)
    )
