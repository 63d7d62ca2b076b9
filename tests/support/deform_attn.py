"""Multi-scale deformable attention by its definition, sample by sample and corner by corner, in float64."""

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.operator import Attributes

__all__ = ["deform_attn_by_hand"]


def deform_attn_by_hand(value: NDArray, sampling: NDArray, attributes: Attributes) -> NDArray[np.float64]:
    """``value`` (B, S, C), ``sampling`` (B, S, heads x levels x points x 3) -> (B, S, C)."""
    heads, points, levels = attributes.heads, attributes.points, attributes.levels
    batch, tokens, channels = value.shape
    value = value.astype(np.float64).reshape(batch, tokens, heads, channels // heads)
    offsets, logits = np.split(sampling.astype(np.float64), [2 * attributes.samples], -1)
    offsets = offsets.reshape(batch, tokens, heads, len(levels), points, 2)
    weights = np.exp(logits.reshape(batch, tokens, heads, -1))
    weights = (weights / weights.sum(-1, keepdims=True)).reshape(batch, tokens, heads, len(levels), points)
    places = [(x, y, w, h) for h, w in levels for y in range(h) for x in range(w)]
    starts = np.cumsum([0, *(h * w for h, w in levels)])
    output = np.zeros_like(value)
    for b, t, head, k, p in np.ndindex(batch, tokens, heads, len(levels), points):
        x, y, w, h = places[t]
        height, width = levels[k]
        px = (x + 0.5) * width / w - 0.5 + offsets[b, t, head, k, p, 0]
        py = (y + 0.5) * height / h - 0.5 + offsets[b, t, head, k, p, 1]
        for row in (np.floor(py), np.floor(py) + 1):
            for column in (np.floor(px), np.floor(px) + 1):
                if 0 <= row < height and 0 <= column < width:
                    pixel = value[b, starts[k] + int(row) * width + int(column), head]
                    share = (1 - abs(py - row)) * (1 - abs(px - column))
                    output[b, t, head] += weights[b, t, head, k, p] * share * pixel
    return output.reshape(batch, tokens, channels)
