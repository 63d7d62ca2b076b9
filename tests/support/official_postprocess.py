"""The official post-processing, step by step on full-size tensors: the reference for tests and benchmark.

Follows the semantics of ``MaskFormer.forward`` and its three ``*_inference`` methods (Mask2Former), written for
readability, not for speed or memory beyond what that form implies.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from proscale_deploy.core.types import Placement

Segment = tuple[int, int, bool]
"""id, class, is thing."""


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, h, w) -> (N, *size), bilinear."""
    return interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def crop_and_resize(maps: Tensor, placement: Placement) -> Tensor:
    """From the padded network input to the frame."""
    height, width = placement.resized_hw
    return resize(maps[:, :height, :width], placement.source_hw)


def full_size_logits(mask_logits: Tensor, placement: Placement) -> Tensor:
    """(Q, h, w) -> (Q, H, W)."""
    return crop_and_resize(resize(mask_logits, placement.padded_hw), placement)


def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    placement: Placement,
    things: set[int],
    object_mask: float = 0.8,
    overlap: float = 0.8,
) -> tuple[Tensor, list[Segment]]:
    """Map (H, W) int32 and its segments."""
    masks = full_size_logits(mask_logits, placement).sigmoid()
    scores, labels = class_logits.softmax(-1).max(-1)
    keep = (labels != class_logits.shape[1] - 1) & (scores > object_mask)
    scores, labels, masks = scores[keep], labels[keep], masks[keep]
    result = torch.zeros(placement.source_hw, dtype=torch.int32)
    segments: list[Segment] = []
    if not len(masks):
        return result, segments
    winner = (scores[:, None, None] * masks).argmax(0)
    stuff_ids: dict[int, int] = {}
    for query, label in enumerate(labels.tolist()):
        won, inside = winner == query, masks[query] >= 0.5
        visible = won & inside
        if not visible.any() or won.sum().item() / inside.sum().item() < overlap:
            continue
        if label in stuff_ids:
            result[visible] = stuff_ids[label]
            continue
        segments.append((len(segments) + 1, label, label in things))
        result[visible] = len(segments)
        if label not in things:
            stuff_ids[label] = len(segments)
    return result, segments


def instances(
    class_logits: Tensor, mask_logits: Tensor, placement: Placement, things: set[int], top: int = 100
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (N,), classes (N,) and masks (N, H, W) bool by falling score, equal scores by class.

    ``things``: the classes kept; all of them unless the model is a panoptic one.
    """
    masks = full_size_logits(mask_logits, placement)
    probabilities = class_logits.softmax(-1)[:, :-1]
    scores, pairs = probabilities.flatten().topk(min(top, probabilities.numel()), sorted=False)
    queries, classes = pairs // probabilities.shape[1], pairs % probabilities.shape[1]
    keep = torch.tensor([label in things for label in classes.tolist()], dtype=torch.bool)
    scores, queries, classes = scores[keep], queries[keep], classes[keep]
    logits = masks[queries]
    binary = (logits > 0).float()
    quality = (logits.sigmoid().flatten(1) * binary.flatten(1)).sum(1) / (binary.flatten(1).sum(1) + 1e-6)
    scores = scores * quality
    order = sorted(range(len(scores)), key=lambda n: (-scores[n].item(), classes[n].item()))
    return scores[order], classes[order], binary[order] > 0


def semantic(
    class_logits: Tensor, mask_logits: Tensor, placement: Placement, resize_masks_first: bool = True
) -> tuple[Tensor, Tensor]:
    """Best class (H, W) and its score (H, W)."""
    probabilities = class_logits.softmax(-1)[:, :-1]
    masks = resize(mask_logits, placement.padded_hw)
    if resize_masks_first:
        masks = crop_and_resize(masks, placement)
    scores = torch.einsum("qc,qhw->chw", probabilities, masks.sigmoid())
    if not resize_masks_first:
        scores = crop_and_resize(scores, placement)
    best = scores.max(0)
    return best.indices, best.values
