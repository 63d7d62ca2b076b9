"""The official form of what the export rewrites: same parameters, the official order of operations.

Masks are made at full resolution and then resized, classes are predicted after every layer, blocked pixels get -inf,
rows without an open pixel are searched for, queries and keys meet in PyTorch's own multi-head attention, positions come
from cumulative sums, and deformable attention normalises offsets and calls softmax and grid_sample as separate steps.
"""

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from proscale_deploy.core.types import Size
from proscale_deploy.export.model import MaskFormer
from proscale_deploy.export.model.decoder import MultiheadAttention, MultiScaleMaskedTransformerDecoder
from proscale_deploy.export.model.deform_attn import MSDeformAttn

__all__ = ["official_form", "official_mask", "official_positions"]


def official_form(model: MaskFormer) -> MaskFormer:
    """A copy of ``model`` that computes as the official code does."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, MSDeformAttn):
            module.__class__ = OfficialMSDeformAttn
        elif isinstance(module, MultiScaleMaskedTransformerDecoder):
            module.__class__ = OfficialDecoder
    return model


def official_positions(size: Size, channels: int) -> Tensor:
    """``PositionEmbeddingSine(channels // 2, normalize=True)`` of one image: (1, H*W, channels)."""
    ones = torch.ones(1, *size)
    dim = torch.arange(channels // 2, dtype=torch.float32)
    dim = 10000 ** (2 * torch.div(dim, 2, rounding_mode="floor") / (channels // 2))
    halves = []
    for axis in (1, 2):
        place = ones.cumsum(axis)
        place = place / (place.select(axis, -1).unsqueeze(axis) + 1e-6) * (2 * math.pi)
        angle = place[..., None] / dim
        halves.append(torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], 4).flatten(3))
    return torch.cat(halves, 3).flatten(1, 2)


def official_mask(mask_logits: Tensor, size: Size, heads: int) -> Tensor:
    """Full-resolution mask logits (B, Q, H, W) -> (B*heads, Q, h*w), True where a query must not look."""
    mask = F.interpolate(mask_logits, size=size, mode="bilinear", align_corners=False)
    mask = (mask.sigmoid().flatten(2).unsqueeze(1).repeat(1, heads, 1, 1).flatten(0, 1) < 0.5).detach()
    mask[torch.where(mask.sum(-1) == mask.shape[-1])] = False
    return mask


class OfficialMSDeformAttn(MSDeformAttn):
    def forward(self, x: Tensor, position: Tensor, levels: Sequence[Size]) -> Tensor:
        batch, tokens, channels = x.shape
        shape = (batch, tokens, self.heads, len(levels), self.points)
        query = x + position
        value = self.value_proj(x).view(batch, tokens, self.heads, -1)
        offsets = self.sampling_offsets(query).view(*shape, 2)
        weights = self.attention_weights(query).view(batch, tokens, self.heads, -1).softmax(-1)

        references = []
        for height, width in levels:
            y, x_ = torch.meshgrid(
                torch.linspace(0.5, height - 0.5, height) / height,
                torch.linspace(0.5, width - 0.5, width) / width,
                indexing="ij",
            )
            references.append(torch.stack([x_.reshape(-1), y.reshape(-1)], -1))
        reference = torch.cat(references)[None, :, None, None, None]
        normalizer = torch.tensor([[width, height] for height, width in levels])[None, None, None, :, None]
        grids = 2 * (reference + offsets / normalizer) - 1

        sampled = []
        for level, (map_, (height, width)) in enumerate(
            zip(value.split([h * w for h, w in levels], 1), levels, strict=True)
        ):
            map_ = map_.flatten(2).transpose(1, 2).reshape(batch * self.heads, -1, height, width)
            grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
            sampled.append(F.grid_sample(map_, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
        weights = weights.transpose(1, 2).reshape(batch * self.heads, 1, tokens, -1)
        output = (torch.stack(sampled, -2).flatten(-2) * weights).sum(-1).view(batch, channels, tokens)
        return self.output_proj(output.transpose(1, 2).contiguous())


def _attend(
    attention: MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    """``nn.MultiheadAttention``, sequence first."""
    return F.multi_head_attention_forward(
        query,
        key,
        value,
        attention.channels,
        attention.heads,
        attention.in_proj_weight,
        attention.in_proj_bias,
        None,
        None,
        False,
        0.0,
        attention.out_proj.weight,
        attention.out_proj.bias,
        attn_mask=mask,
    )[0]


def _residual(layer: nn.Module, x: Tensor, update: Callable[[Tensor], Tensor]) -> Tensor:
    """Pre- or post-norm around ``update``."""
    return x + update(layer.norm(x)) if layer.pre_norm else layer.norm(x + update(x))


class OfficialDecoder(MultiScaleMaskedTransformerDecoder):
    def forward(self, mask_features: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        return self.layer_outputs(mask_features, maps)[-1]

    def layer_outputs(self, mask_features: Tensor, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        batch = len(mask_features)
        sizes = [tuple(x.shape[-2:]) for x in maps]
        sources, positions = [], []
        for level, (x, project) in enumerate(zip(maps, self.input_proj, strict=True)):
            embed = self.level_embed.weight[level][None, :, None]
            sources.append((project(x).flatten(2) + embed).permute(2, 0, 1))
            positions.append(official_positions(sizes[level], self.channels).transpose(0, 1).repeat(1, batch, 1))
        queries = self.query_feat.weight.unsqueeze(1).repeat(1, batch, 1)
        place = self.query_embed.weight.unsqueeze(1).repeat(1, batch, 1)

        outputs = [self._predict(queries, mask_features)]
        for index, (cross, own, feed_forward) in enumerate(
            zip(
                self.transformer_cross_attention_layers,
                self.transformer_self_attention_layers,
                self.transformer_ffn_layers,
                strict=True,
            )
        ):
            level = index % 3
            source, position = sources[level], positions[level]
            mask = official_mask(outputs[-1][1], sizes[level], cross.multihead_attn.heads)
            queries = _residual(
                cross,
                queries,
                lambda x, c=cross, s=source, p=position, m=mask: _attend(c.multihead_attn, x + place, s + p, s, m),
            )
            queries = _residual(own, queries, lambda x, o=own: _attend(o.self_attn, x + place, x + place, x))
            queries = _residual(feed_forward, queries, lambda x, f=feed_forward: f.linear2(F.relu(f.linear1(x))))
            outputs.append(self._predict(queries, mask_features))
        return outputs

    def _predict(self, queries: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        state = self.decoder_norm(queries).transpose(0, 1)
        mask_logits = torch.einsum("bqc,bchw->bqhw", self.mask_embed(state), mask_features)
        return self.class_embed(state), mask_logits
