"""The operator in torch: in FP64 as the truth, in the case's type as a peer, and split in two for kernels of others,
which want sampling locations and attention weights made for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from plugins.bench.cases import HEAD_DIM, HEADS, POINTS, Case, Inputs
from proscale_deploy.core.types import Size

__all__ = ["Grid", "attend_by_grid_sample", "exact", "fused_by_grid_sample", "locations_and_logits"]


@dataclass(frozen=True)
class Grid:
    """What a case fixes, on the device: L levels, S tokens."""

    levels: tuple[Size, ...]
    shapes: torch.Tensor
    """(L, 2), int64: heights and widths."""
    starts: torch.Tensor
    """(L,), int64: the first token of each level."""
    reference: torch.Tensor
    """(S, 1, 1, 1, 2): each token's x and y in its own map, which is 1 by 1."""
    size_xy: torch.Tensor
    """(L, 1, 2): widths and heights."""

    @classmethod
    def of(cls, case: Case, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Grid:
        """With the floating-point tensors in `dtype`."""
        shapes = torch.tensor(case.levels, device=device)
        areas = shapes.prod(1)
        centres = []
        for height, width in case.levels:
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            centres.append(torch.stack([(x.to(dtype) + 0.5) / width, (y.to(dtype) + 0.5) / height], -1).flatten(0, 1))
        reference = torch.cat(centres).to(device)[:, None, None, None, :]
        return cls(case.levels, shapes, areas.cumsum(0) - areas, reference, shapes.flip(1).to(dtype)[:, None, :])


def locations_and_logits(sampling: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, S, heads, L, points, 2) of places where the map is 1 by 1, and logits (B, S, heads, L x points).

    In the type of `grid`: the sum of a large coordinate and a small offset would lose the offset in FP16.
    """
    batch, tokens, _ = sampling.shape
    levels = len(grid.levels)
    offsets, logits = sampling.split([2 * HEADS * levels * POINTS, HEADS * levels * POINTS], -1)
    offsets = offsets.view(batch, tokens, HEADS, levels, POINTS, 2).to(grid.reference.dtype)
    return grid.reference + offsets / grid.size_xy, logits.reshape(batch, tokens, HEADS, levels * POINTS)


def attend_by_grid_sample(
    value: torch.Tensor, levels: tuple[Size, ...], locations: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Deformable DETR, equation 3, one grid_sample for each level.

    `value` (B, S, heads x head_dim), `locations` as above, `weights` (B, S, heads, L x points) -> (B, S, C).
    """
    batch, tokens, channels = value.shape
    sampled = []
    for k, level in enumerate(value.split([height * width for height, width in levels], 1)):
        image = (
            level.reshape(batch, -1, HEADS, HEAD_DIM).permute(0, 2, 3, 1).reshape(batch * HEADS, HEAD_DIM, *levels[k])
        )
        places = 2 * locations[:, :, :, k].transpose(1, 2).flatten(0, 1) - 1  # (B x heads, S, points, 2)
        sampled.append(F.grid_sample(image, places, mode="bilinear", padding_mode="zeros", align_corners=False))
    share = weights.transpose(1, 2).reshape(batch * HEADS, 1, tokens, -1)
    summed = (torch.cat(sampled, -1) * share).sum(-1)  # (B x heads, head_dim, S)
    return summed.view(batch, channels, tokens).transpose(1, 2).contiguous()


def fused_by_grid_sample(value: torch.Tensor, sampling: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The whole operator, everything in the type of `value` but the making of the locations."""
    locations, logits = locations_and_logits(sampling, grid)
    return attend_by_grid_sample(value, grid.levels, locations.to(value.dtype), logits.softmax(-1))


def exact(case: Case, inputs: Inputs) -> torch.Tensor:
    """The operator in FP64 from the very inputs that the kernels get: (B, S, C), image by image to save memory."""
    grid = Grid.of(case, inputs.value.device, torch.float64)
    pairs = zip(inputs.value.double().split(1), inputs.sampling.double().split(1), strict=True)
    return torch.cat([fused_by_grid_sample(value, sampling, grid) for value, sampling in pairs])
