"""Swin Transformer (Liu et al. 2021, arXiv 2103.14030), as Mask2Former's ``D2SwinTransformer`` builds it.

Maps travel channels last, (B, H, W, C), until they leave. Dropout and stochastic depth, which act in training only and
which a deployed network has no use for, are left out.
"""

import functools
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from proscale_deploy.core.spec import SwinSpec
from proscale_deploy.core.types import Size
from proscale_deploy.export.model.layers import constant, static_shape

__all__ = ["SwinTransformer"]

SEPARATED = -100.0
"""The official number added to the score of two pixels that lie in one window only because the map was rolled."""


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for every relative position."""

    def __init__(self, channels: int, heads: int, spec: SwinSpec) -> None:
        super().__init__()
        self.heads = heads
        self.scale = spec.qk_scale or (channels // heads) ** -0.5
        self.qkv = nn.Linear(channels, 3 * channels, bias=spec.qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * spec.window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_position_index(spec.window))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` (B*windows, N, C), ``mask`` (1, windows, 1, N, N) added to the scores -> (B*windows, N, C)."""
        tokens, channels = static_shape(x)
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # each (B*windows, heads, N, C/heads)
        bias = self.relative_position_bias_table[self.get_buffer("relative_position_index").flatten()]
        scores = (q * self.scale) @ k.transpose(-1, -2) + bias.reshape(tokens, tokens, self.heads).permute(2, 0, 1)
        if mask is not None:
            windows = static_shape(mask)[0]
            scores = scores.reshape(-1, windows, self.heads, tokens, tokens) + mask
            scores = scores.reshape(-1, self.heads, tokens, tokens)
        output = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, tokens, channels)
        return cast(Tensor, self.proj(output))


def _relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of pixels of a window, (window^2, window^2) int64."""
    y, x = np.divmod(np.arange(window * window), window)
    dy, dx = (axis[:, None] - axis[None, :] + window - 1 for axis in (y, x))
    return torch.from_numpy(dy * (2 * window - 1) + dx)


@functools.lru_cache(maxsize=8)
def _shifted_window_mask(size: Size, window: int) -> NDArray[np.float32]:
    """Which pixels of a rolled map (sides multiples of ``window``) may look at each other, (1, windows, 1, N, N).

    Rolling by ``window // 2`` brings the first rows and columns behind the last ones: pixels on two sides of such a
    seam share a window but are no neighbours.
    """
    height, width = size
    shift = window // 2
    sides = np.zeros(size, np.int64)
    sides[height - shift :] += 2
    sides[:, width - shift :] += 1
    windows = sides.reshape(height // window, window, width // window, window).transpose(0, 2, 1, 3)
    side = windows.reshape(-1, window * window)
    apart = side[:, :, None] != side[:, None, :]
    return np.where(apart, np.float32(SEPARATED), np.float32(0))[None, :, None]


class Mlp(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class SwinTransformerBlock(nn.Module):
    """Window attention, every second time on a map rolled by half a window, and an MLP; pre-norm."""

    def __init__(self, channels: int, heads: int, shift: int, spec: SwinSpec) -> None:
        super().__init__()
        self.window = spec.window
        self.shift = shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, spec)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * spec.mlp_ratio))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x`` (B, H, W, C), ``mask`` of the padded and rolled map -> (B, H, W, C)."""
        height, width, channels = static_shape(x)
        window = self.window
        # Padding comes after the norm, so padded pixels are zeros there and take part in the attention.
        y = F.pad(self.norm1(x), (0, 0, 0, -width % window, 0, -height % window))
        rows, columns = -(-height // window), -(-width // window)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
        y = y.reshape(-1, rows, window, columns, window, channels).transpose(2, 3)
        y = self.attn(y.reshape(-1, window * window, channels), mask if self.shift else None)
        y = y.reshape(-1, rows, columns, window, window, channels).transpose(2, 3)
        y = y.reshape(-1, rows * window, columns * window, channels)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y[:, :height, :width]
        return x + cast(Tensor, self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """2x2 neighbours become one pixel of twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C)."""
        height, width, _ = static_shape(x)
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return cast(Tensor, self.reduction(self.norm(x)))


class BasicLayer(nn.Module):
    """The blocks of one stage, and the way to the next."""

    def __init__(self, channels: int, depth: int, heads: int, last: bool, spec: SwinSpec) -> None:
        super().__init__()
        self.window = spec.window
        self.blocks = nn.ModuleList(
            SwinTransformerBlock(channels, heads, shift=(index % 2) * (spec.window // 2), spec=spec)
            for index in range(depth)
        )
        self.downsample = None if last else PatchMerging(channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) -> the stage's output (B, H, W, C) and the next stage's input."""
        height, width, _ = static_shape(x)
        padded = height + -height % self.window, width + -width % self.window
        mask = constant(_shifted_window_mask(padded, self.window), x.device)
        for block in self.blocks:
            x = block(x, mask)
        return x, x if self.downsample is None else self.downsample(x)


class PatchEmbed(nn.Module):
    """One linear map per square patch, and a norm if asked for."""

    def __init__(self, channels: int, side: int, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, side, side)
        self.norm = nn.LayerNorm(channels) if norm else None

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H/4, W/4, C)."""
        x = self.proj(image).permute(0, 2, 3, 1)
        return x if self.norm is None else cast(Tensor, self.norm(x))


class SwinTransformer(nn.Module):
    """Swin-T/S/B/L giving the maps of res2, res3, res4 and res5."""

    def __init__(self, spec: SwinSpec) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(spec.embed_dim, spec.patch_size, spec.patch_norm)
        if spec.absolute_positions:
            side = spec.pretrain_size // spec.patch_size
            self.absolute_pos_embed = nn.Parameter(torch.empty(1, spec.embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        else:
            self.register_parameter("absolute_pos_embed", None)
        stages = list(zip(spec.channels, spec.depths, spec.heads, strict=True))
        self.layers = nn.ModuleList(
            BasicLayer(channels, depth, heads, index == len(stages) - 1, spec)
            for index, (channels, depth, heads) in enumerate(stages)
        )
        for index, (channels, _, _) in enumerate(stages):
            self.add_module(f"norm{index}", nn.LayerNorm(channels))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps (B, C_i, H/s, W/s) at strides s = 4, 8, 16, 32."""
        x = self.patch_embed(image)
        if self.absolute_pos_embed is not None:
            height, width, _ = static_shape(x)
            place = F.interpolate(self.absolute_pos_embed, size=(height, width), mode="bicubic")
            x = x + place.permute(0, 2, 3, 1)
        maps = []
        for index, layer in enumerate(self.layers):
            output, x = layer(x)
            maps.append(self.get_submodule(f"norm{index}")(output).permute(0, 3, 1, 2))
        return tuple(maps)
