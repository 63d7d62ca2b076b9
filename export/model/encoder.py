"""The pixel decoder's transformer encoder: Mask2Former's own, and PRO-SCALE's, which adds maps stage by stage.

Maps run from coarse to fine (res5, res4, res3). A map travels as tokens (B, H*W, C), rows first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from proscale_deploy.core.spec import PixelDecoderSpec, ProScaleSpec
from proscale_deploy.core.types import Size
from proscale_deploy.export.model.deform_attn import MSDeformAttn
from proscale_deploy.export.model.layers import resize_bilinear, to_map, to_tokens
from proscale_deploy.export.model.positions import sine_positions

__all__ = ["LEVELS", "DeformableEncoderLayer", "DeformableTransformer", "Encoder", "ProScaleEncoder"]

LEVELS = 3
"""res5, res4, res3."""


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention over the tokens of ``levels`` maps, then a feed-forward network; post-norm."""

    def __init__(self, spec: PixelDecoderSpec, levels: int) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(spec.channels, levels, spec.heads, spec.points)
        self.norm1 = nn.LayerNorm(spec.channels)
        self.linear1 = nn.Linear(spec.channels, spec.feedforward)
        self.linear2 = nn.Linear(spec.feedforward, spec.channels)
        self.norm2 = nn.LayerNorm(spec.channels)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, x: Tensor, position: Tensor, sizes: Sequence[Size]) -> Tensor:
        """``x`` (B, S, C), ``position`` (1, S, C), S tokens of maps of ``sizes`` -> (B, S, C)."""
        x = self.norm1(x + self.self_attn(x, position, sizes))
        y = self.linear2(F.relu(self.linear1(x)))
        return self.norm2(x + y)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Mask2Former's encoder: every layer sees all three maps."""

    def __init__(self, spec: PixelDecoderSpec) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DeformableEncoderLayer(spec, LEVELS) for _ in range(spec.layers))

    def forward(self, tokens: Sequence[Tensor], positions: Sequence[Tensor], sizes: Sequence[Size]) -> Tensor:
        """Three maps as tokens -> all tokens (B, S, C)."""
        x, position = torch.cat(list(tokens), 1), torch.cat(list(positions), 1)
        for layer in self.layers:
            x = layer(x, position, sizes)
        return x


class TokenRecalibration(nn.Module):
    """TRC: coarse tokens are gated by what the finest map shows (Aich et al. 2025, arXiv 2404.14657).

    The official code takes tokens (B, H*W, C) for a map (B, C, H, W) without transposing, in both variants, so that
    "channels" and "pixels" of the gate are scrambled; trained weights rely on it, hence the plain reshapes here.
    """

    def __init__(self, channels: int, spec: ProScaleSpec) -> None:
        super().__init__()
        self.channels = channels
        self.temperature = spec.temperature
        self.ops = nn.Conv2d(channels, 1, 1) if spec.recalibration == "conv" else nn.Linear(channels, 1)
        nn.init.xavier_uniform_(self.ops.weight)

    def forward(self, coarse: Tensor, fine: Tensor, coarse_size: Size, fine_size: Size) -> Tensor:
        """``coarse`` (B, L, C), ``fine`` (B, L', C) -> ``coarse`` scaled by factors in 0..1."""
        tokens = coarse_size[0] * coarse_size[1]
        guide = resize_bilinear(fine.reshape(-1, self.channels, *fine_size), coarse_size)
        if isinstance(self.ops, nn.Conv2d):
            gate = torch.sigmoid(self.temperature * self.ops(guide))
            return (coarse.reshape(-1, self.channels, *coarse_size) * gate).reshape(-1, tokens, self.channels)
        gate = torch.sigmoid(self.temperature * self.ops(guide.reshape(-1, tokens, self.channels)))
        return coarse * gate


class ProScaleEncoder(nn.Module):
    """PRO-SCALE's encoder: res5 alone, then res5 and res4, then all three maps (arXiv 2404.14657).

    Stage lengths may be 0.
    """

    def __init__(self, spec: PixelDecoderSpec, proscale: ProScaleSpec) -> None:
        super().__init__()
        self.stage_layers = proscale.stage_layers
        self.residual = proscale.residual
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(spec, levels)
            for levels, count in enumerate(proscale.stage_layers, start=1)
            for _ in range(count)
        )
        self.token_excite = None if proscale.recalibration == "none" else TokenRecalibration(spec.channels, proscale)

    def forward(self, tokens: Sequence[Tensor], positions: Sequence[Tensor], sizes: Sequence[Size]) -> Tensor:
        """Three maps as tokens -> all tokens (B, S, C)."""
        inputs = list(tokens)
        if self.token_excite is not None:
            for level in range(LEVELS - 1):
                inputs[level] = self.token_excite(tokens[level], tokens[-1], sizes[level], sizes[-1])
        layers = iter(self.layers)
        x = inputs[0]
        for levels, count in enumerate(self.stage_layers, start=1):
            if levels > 1:
                x = torch.cat([x, inputs[levels - 1]], 1)
            position = torch.cat(list(positions[:levels]), 1)
            stage_input = torch.cat(inputs[:levels], 1) if self.residual and levels < LEVELS else None
            for _ in range(count):
                x = next(layers)(x, position, sizes[:levels])
                if stage_input is not None:
                    x = x + stage_input
        return x


class DeformableTransformer(nn.Module):
    """Adds positions and level embeddings to the maps and runs the encoder."""

    def __init__(self, spec: PixelDecoderSpec) -> None:
        super().__init__()
        self.channels = spec.channels
        self.level_embed = nn.Parameter(torch.empty(LEVELS, spec.channels))
        nn.init.normal_(self.level_embed)
        self.encoder = Encoder(spec) if spec.proscale is None else ProScaleEncoder(spec, spec.proscale)

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[Size]) -> list[Tensor]:
        """Maps (B, C, H_i, W_i), coarse to fine -> the encoded maps, same shapes."""
        tokens = [to_tokens(x) for x in maps]
        positions = [
            sine_positions(size, self.channels, maps[0]) + self.level_embed[level] for level, size in enumerate(sizes)
        ]
        encoded = self.encoder(tokens, positions, sizes).split([h * w for h, w in sizes], 1)
        return [to_map(x, size) for x, size in zip(encoded, sizes, strict=True)]
