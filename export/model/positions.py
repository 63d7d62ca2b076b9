"""Sine position embeddings, computed once per map size and outside the graph, so that an export holds constants."""

import functools
import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from proscale_deploy.core.types import Size
from proscale_deploy.export.model.layers import constant

__all__ = ["sine_positions"]

TEMPERATURE = 10000.0
EPSILON = 1e-6
"""The official normalisation divides by (last coordinate + 1e-6)."""


def sine_positions(size: Size, channels: int, like: Tensor) -> Tensor:
    """Position embedding (1, H*W, channels) float32 of a map, rows first, on the device of ``like``.

    The first half of the channels encodes y, the second x, each normalised to (0, 2*pi]: channel 2i is the sine and
    2i+1 the cosine of coordinate / TEMPERATURE^(4i/channels). Official: ``PositionEmbeddingSine(normalize=True)``.
    """
    return constant(_sine_table(size, channels), like.device)


@functools.lru_cache(maxsize=32)
def _sine_table(size: Size, channels: int) -> NDArray[np.float32]:
    height, width = size
    half = channels // 2
    frequency = TEMPERATURE ** (-2 * (np.arange(half) // 2) / half)

    def encode(length: int) -> NDArray[np.float64]:
        coordinate = np.arange(1, length + 1) / (length + EPSILON) * 2 * math.pi
        angle = coordinate[:, None] * frequency
        return np.where(np.arange(half) % 2 == 0, np.sin(angle), np.cos(angle))

    table = np.empty((1, height, width, channels), np.float32)
    table[..., :half] = encode(height)[:, None]
    table[..., half:] = encode(width)
    return table.reshape(1, height * width, channels)
