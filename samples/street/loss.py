"""The set loss of Mask2Former (Cheng et al. 2022, arXiv 2112.01527, section 3) for small masks."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Losses", "Targets", "bce_cost", "dice_cost", "match", "set_loss", "unsure_pixels"]

POINT_SHARE = 0.25
CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT, NO_OBJECT_WEIGHT = 2.0, 5.0, 5.0, 0.1


@dataclass(frozen=True)
class Targets:
    """The segments of a batch, padded to N per picture."""

    classes: Tensor
    """(B, N) int64, -1 where padded."""
    masks: Tensor
    """(B, N, P) float, the share 0..1 of each of P mask pixels that belongs to the segment."""


@dataclass(frozen=True)
class Losses:
    """Scalars, summed over the layers, without their weights."""

    classification: Tensor
    mask: Tensor
    dice: Tensor

    @property
    def total(self) -> Tensor:
        return CLASS_WEIGHT * self.classification + MASK_WEIGHT * self.mask + DICE_WEIGHT * self.dice


def bce_cost(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean binary cross-entropy of every (query, segment) pair: (..., Q, P), (..., N, P) -> (..., Q, N).

    BCE(x, t) = softplus(x) - x t, hence one matrix product.
    """
    return (F.softplus(logits).sum(-1, keepdim=True) - logits @ masks.transpose(-1, -2)) / logits.shape[-1]


def dice_cost(logits: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 |s t| + 1) / (|s| + |t| + 1), s = sigmoid(logits), of every pair; shapes as in :func:`bce_cost`."""
    soft = logits.sigmoid()
    overlap = soft @ masks.transpose(-1, -2)
    return 1 - (2 * overlap + 1) / (soft.sum(-1, keepdim=True) + masks.sum(-1).unsqueeze(-2) + 1)


@torch.no_grad()
def match(class_logits: Tensor, mask_logits: Tensor, targets: Targets) -> list[NDArray[np.int64]]:
    """The cheapest one-to-one assignment per layer and picture.

    ``class_logits`` (L, B, Q, K+1), ``mask_logits`` (L, B, Q, P) -> L*B arrays (2, n): queries and their segments.
    """
    count = (targets.classes >= 0).sum(-1).tolist()
    layers, batch = class_logits.shape[:2]
    wanted = targets.classes.clamp(min=0)[None, :, None].expand(layers, -1, class_logits.shape[2], -1)
    cost = -CLASS_WEIGHT * class_logits.softmax(-1).gather(-1, wanted)
    cost += MASK_WEIGHT * bce_cost(mask_logits, targets.masks) + DICE_WEIGHT * dice_cost(mask_logits, targets.masks)
    table = cost.float().cpu().numpy()
    return [
        np.stack(linear_sum_assignment(table[layer, picture, :, : count[picture]])).astype(np.int64)
        for layer in range(layers)
        for picture in range(batch)
    ]


def unsure_pixels(logits: Tensor, share: float) -> Tensor:
    """Where to compare masks: a quarter anywhere, the rest where a prediction is least sure (PointRend, arXiv
    1912.08193).

    Averaged over all pixels, the loss of a small thing is lost in its background. ``logits`` (M, P) -> (M, share * P)
    indices, without repetition.
    """
    anywhere = torch.rand_like(logits) < share / 4
    doubt = (-logits.abs()).masked_fill(anywhere, torch.inf)
    return doubt.topk(int(share * logits.shape[-1]), dim=-1, sorted=False).indices


def set_loss(class_logits: Tensor, mask_logits: Tensor, targets: Targets, share: float = POINT_SHARE) -> Losses:
    """``class_logits`` (L, B, Q, K+1) and ``mask_logits`` (L, B, Q, P) of all L layers against ``targets``; masks are
    compared in a ``share`` of the pixels."""
    layers, batch, queries, outputs = class_logits.shape
    pairs = match(class_logits, mask_logits, targets)
    place = np.repeat(np.arange(layers * batch), [p.shape[1] for p in pairs])
    query, segment = np.concatenate(pairs, axis=1)
    chosen = torch.from_numpy(place * queries + query).to(class_logits.device)
    picture, owner = torch.from_numpy(place % batch), torch.from_numpy(segment)
    picture, owner = picture.to(class_logits.device), owner.to(class_logits.device)

    wanted = torch.full((layers * batch * queries,), outputs - 1, dtype=torch.int64, device=class_logits.device)
    wanted[chosen] = targets.classes[picture, owner]
    weight = torch.ones(outputs, device=class_logits.device)
    weight[-1] = NO_OBJECT_WEIGHT
    # Every layer's cross-entropy is normalised by its own weights, as if it were called layer by layer.
    entropy = F.cross_entropy(class_logits.flatten(0, 2).float(), wanted, weight, reduction="none").view(layers, -1)
    classification = (entropy.sum(-1) / weight[wanted].view(layers, -1).sum(-1)).sum()

    logits = mask_logits.flatten(0, 2)[chosen].float()
    points = unsure_pixels(logits.detach(), share)
    logits, masks = logits.gather(1, points), targets.masks[picture, owner].gather(1, points)
    segments = (targets.classes >= 0).sum().clamp(min=1)
    mask = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").mean(-1).sum() / segments
    soft = logits.sigmoid()
    dice = (1 - (2 * (soft * masks).sum(-1) + 1) / (soft.sum(-1) + masks.sum(-1) + 1)).sum() / segments
    return Losses(classification, mask, dice)
