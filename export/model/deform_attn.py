"""Multi-scale deformable attention (Zhu et al. 2021, Deformable DETR, arXiv 2010.04159, equation 3), fused.

Softmax, sampling positions and interpolation are one operator: PyTorch operations here, one node in an ONNX file.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from proscale_deploy.core.operator import DOMAIN, OP_TYPE
from proscale_deploy.core.types import Size
from proscale_deploy.export.model.layers import constant, static_shape

__all__ = ["MSDeformAttn", "ms_deform_attn"]


def ms_deform_attn(value: Tensor, sampling: Tensor, heads: int, points: int, levels: Sequence[Size]) -> Tensor:
    """Every token looks at ``points`` positions in each level, for each head, around its own place.

    ``value`` (B, S, C): the tokens of all levels, level after level, rows first; S is the sum of H*W over ``levels``.
    ``sampling`` (B, S, heads*levels*points*3): offsets in pixels of the sampled level, laid out (head, level, point,
    xy), then attention logits, laid out (head, level, point). Returns (B, S, C) in the type of ``value``.

    A token at (y, x) of an H x W level samples level k at ((x+.5)/W * W_k + dx - .5, (y+.5)/H * H_k + dy - .5) in
    pixels, bilinearly, with zeros outside; the softmax runs over levels and points of a head. All of it in float32.
    """
    levels = tuple(levels)
    if torch.onnx.is_in_onnx_export():
        return cast(Tensor, _AsOneNode.apply(value, sampling, heads, points, levels))  # type: ignore[no-untyped-call]
    return _sample(value, sampling, heads, points, levels)


def _sample(value: Tensor, sampling: Tensor, heads: int, points: int, levels: tuple[Size, ...]) -> Tensor:
    tokens, channels = static_shape(value)
    samples = heads * len(levels) * points
    offsets, logits = sampling.float().split([2 * samples, samples], -1)

    weights = logits.reshape(-1, tokens, heads, len(levels) * points).softmax(-1)
    weights = weights.transpose(1, 2).reshape(-1, 1, tokens, len(levels) * points)  # (B*heads, 1, S, levels*points)

    # grid_sample wants positions in -1..1 from edge to edge: 2 * (pixel + .5) / size - 1.
    places, per_pixel = (constant(array, value.device) for array in _sampling_constants(levels))
    grid = places + offsets.reshape(-1, tokens, heads, len(levels), points, 2) * per_pixel
    grid = grid.permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # (levels, B*heads, S, points, 2)

    planes = value.float().reshape(-1, tokens, heads, channels // heads).permute(0, 2, 3, 1).flatten(0, 1)
    output = torch.zeros((), device=value.device)
    for index, (plane, (height, width)) in enumerate(
        zip(planes.split([h * w for h, w in levels], -1), levels, strict=True)
    ):
        plane = plane.unflatten(-1, (height, width))  # (B*heads, C/heads, H, W)
        sampled = F.grid_sample(plane, grid[index], mode="bilinear", padding_mode="zeros", align_corners=False)
        output = output + (sampled * weights[..., index * points : (index + 1) * points]).sum(-1)
    return output.reshape(-1, channels, tokens).transpose(1, 2).to(value.dtype)


@functools.lru_cache(maxsize=32)
def _sampling_constants(levels: tuple[Size, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The place of every token in -1..1, (S, 1, 1, 1, xy), and how far one pixel of a level goes, (levels, 1, xy)."""
    places = []
    for height, width in levels:
        y, x = np.mgrid[:height, :width]
        places.append(np.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1).reshape(-1, 1, 1, 1, 2))
    per_pixel = [[[2 / width, 2 / height]] for height, width in levels]
    return np.concatenate(places).astype(np.float32), np.array(per_pixel, np.float32)


class _AsOneNode(torch.autograd.Function):
    """What the ONNX exporter sees: one node of the project's own domain."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, sampling: Tensor, heads: int, points: int, levels: tuple[Size, ...]) -> Tensor:
        return _sample(value, sampling, heads, points, levels)

    @staticmethod
    def symbolic(g: Any, value: Any, sampling: Any, heads: int, points: int, levels: tuple[Size, ...]) -> Any:
        shapes = [side for size in levels for side in size]
        node = g.op(f"{DOMAIN}::{OP_TYPE}", value, sampling, heads_i=heads, points_i=points, levels_i=shapes)
        node.setType(value.type())
        return node


class MSDeformAttn(nn.Module):
    """Deformable self-attention with its projections; entries as in the official ``MSDeformAttn``."""

    def __init__(self, channels: int, levels: int, heads: int, points: int) -> None:
        super().__init__()
        self.heads = heads
        self.points = points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        self._init_weights(levels)

    def _init_weights(self, levels: int) -> None:
        """Point p of head h starts p pixels away in the direction of the head: a ring of squares around the token."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.points + 1)
        ring = direction[:, None, None] * distance[:, None]  # (heads, 1, points, xy)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(ring.expand(-1, levels, -1, -1).flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, x: Tensor, position: Tensor, levels: Sequence[Size]) -> Tensor:
        """``x`` (B, S, C), ``position`` (1, S, C) -> (B, S, C)."""
        weight = torch.cat([self.sampling_offsets.weight, self.attention_weights.weight])
        bias = torch.cat([self.sampling_offsets.bias, self.attention_weights.bias])
        sampling = F.linear(x + position, weight, bias)
        output = ms_deform_attn(self.value_proj(x), sampling, self.heads, self.points, levels)
        return cast(Tensor, self.output_proj(output))
