"""Multi-scale deformable attention by its definition, in float64, and how far a float32 computation may be from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.operator import Attributes

__all__ = ["Exact", "deform_attn_by_hand", "deform_attn_exact"]


@dataclass(frozen=True)
class Exact:
    """What the operator is in exact arithmetic; all arrays (B, tokens, C) float64."""

    output: NDArray[np.float64]
    magnitude: NDArray[np.float64]
    """Sum of weight x |pixel|: what rounding errors are in proportion to."""
    shift: NDArray[np.float64]
    """How far the output moves at most when every position moves by a share of the size of its map, per share."""

    def bound(self) -> NDArray[np.float64]:
        """The largest error of a computation whose positions, weights and sums are float32.

        With u = 2^-24: a position x * scale - .5 + offset takes four roundings of numbers up to the map's size, 4u of
        it, and its weights one more each: 8u. A product of attention and two weights, and the sums over n samples, are
        off by (2n + 20)u at most: 1e-5, which is 168u, up to n = 64. Attention below the normal numbers is noise.
        """
        tiny = np.finfo(np.float32).tiny
        return 1e-5 * self.magnitude + 8 * 2.0**-24 * self.shift + tiny


def deform_attn_exact(
    value: NDArray, sampling: NDArray, attributes: Attributes, tokens: Sequence[int] | None = None
) -> Exact:
    """``value`` (B, S, C), ``sampling`` (B, S, heads x levels x points x 3): of all tokens, or of ``tokens`` only."""
    heads, points, levels = attributes.heads, attributes.points, attributes.levels
    batch, _, channels = value.shape
    value = value.astype(np.float64).reshape(batch, -1, heads, channels // heads)
    places = np.array([(x, y, w, h) for h, w in levels for y in range(h) for x in range(w)])
    if tokens is not None:
        places, sampling = places[tokens], sampling[:, tokens]
    x, y, own_width, own_height = places.T[:, None, :, None]  # each (1, tokens, 1)
    samples = (batch, len(places), heads, len(levels), points)
    offsets, logits = np.split(sampling.astype(np.float64), [2 * attributes.samples], -1)
    offsets, logits = offsets.reshape(*samples, 2), logits.reshape(*samples)
    with np.errstate(invalid="ignore"):  # Inf - Inf: NaN, as in any softmax
        weights = np.exp(logits - logits.max((3, 4), keepdims=True))
        weights /= weights.sum((3, 4), keepdims=True)

    output, magnitude, shift = (np.zeros((*samples[:3], value.shape[-1])) for _ in range(3))
    image, head = np.ogrid[:batch, :1, :heads][::2]
    start = 0
    for k, (height, width) in enumerate(levels):
        pixels = value[:, start : start + height * width]
        for p in range(points):
            px = (x + 0.5) * width / own_width - 0.5 + offsets[:, :, :, k, p, 0]
            py = (y + 0.5) * height / own_height - 0.5 + offsets[:, :, :, k, p, 1]
            for row in (np.floor(py), np.floor(py) + 1):
                for column in (np.floor(px), np.floor(px) + 1):
                    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)  # not for NaN either
                    with np.errstate(invalid="ignore"):
                        index = np.where(inside, row * width + column, 0).astype(int)
                        share = np.where(inside, (1 - abs(py - row)) * (1 - abs(px - column)), 0)
                    term = (weights[..., k, p] * share)[..., None] * pixels[image, index, head]
                    output += term
                    magnitude += abs(term)
        edged = np.pad(pixels.reshape(batch, height, width, *value.shape[2:]), [(0, 0), (1, 1), (1, 1), (0, 0), (0, 0)])
        steps = [abs(np.diff(edged, axis=axis)).max((1, 2)) for axis in (1, 2)]  # each (B, heads, head_dim)
        shift += weights[..., k, :].sum(-1)[..., None] * (height * steps[0] + width * steps[1])[:, None]
        start += height * width
    return Exact(*(array.reshape(batch, len(places), channels) for array in (output, magnitude, shift)))


def deform_attn_by_hand(value: NDArray, sampling: NDArray, attributes: Attributes) -> NDArray[np.float64]:
    """``value`` (B, S, C), ``sampling`` (B, S, heads x levels x points x 3) -> (B, S, C)."""
    return deform_attn_exact(value, sampling, attributes).output
