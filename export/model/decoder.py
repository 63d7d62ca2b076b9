"""The masked-attention transformer decoder (Cheng et al. 2022, Mask2Former, arXiv 2112.01527, section 3.2).

Equal to the official ``MultiScaleMaskedTransformerDecoder``, rewritten so that a layer costs what it uses: attention
masks are made at the resolution at which they are used, and predictions only where they are asked for.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from proscale_deploy.core.spec import DecoderSpec
from proscale_deploy.export.model.layers import init_c2_xavier, map_size, resize_bilinear, static_shape, to_tokens
from proscale_deploy.export.model.positions import sine_positions

__all__ = ["MultiScaleMaskedTransformerDecoder", "attention_bias"]

LEVELS = 3
"""Layer i looks at map i modulo 3: res5, res4, res3."""

BLOCKED = -(2.0**15)
"""Added to the score of a pixel outside the mask. Half of FP16's range: exact there, no sum with a score overflows, and
the exponential of the distance to any open pixel's score is 0, as it is for the official -inf."""


def attention_bias(mask_logits: Tensor) -> Tensor:
    """Mask logits (B, Q, L) -> (B, 1, Q, L): BLOCKED where a query must not look, 0 elsewhere.

    A query looks where its mask probability is at least one half, or everywhere if that is nowhere: the maximum tells
    without the official search for full rows.
    """
    somewhere = mask_logits.amax(-1, keepdim=True) >= 0
    blocked = (mask_logits < 0) & somewhere
    zero = torch.zeros((), dtype=mask_logits.dtype, device=mask_logits.device)
    return torch.where(blocked, zero + BLOCKED, zero).unsqueeze(1)


def _flat(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H*W)."""
    channels, height, width = static_shape(x)
    return x.reshape(-1, channels, height * width)


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention with the entries of ``nn.MultiheadAttention``, in plain products."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.channels = channels
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_position: Tensor,
        key_position: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """``query`` (B, Q, C), ``key``, ``value`` (B, L, C), positions (1, Q or L, C), ``bias`` (B, 1, Q, L) added to
        the scores -> (B, Q, C)."""
        q = self._project(0, query, query_position) * (self.channels // self.heads) ** -0.5
        k = self._project(1, key, key_position)
        v = self._project(2, value, None)
        scores = q @ k.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        output = (scores.softmax(-1) @ v).transpose(1, 2)  # (B, Q, heads, C/heads)
        queries, _ = static_shape(query)
        return cast(Tensor, self.out_proj(output.reshape(-1, queries, self.channels)))

    def _project(self, part: int, x: Tensor, position: Tensor | None) -> Tensor:
        """(B, L, C) -> (B, heads, L, C/heads)."""
        weight = self.in_proj_weight.split(self.channels)[part]
        bias = self.in_proj_bias.split(self.channels)[part]
        if position is not None:
            # W(x + p) + b = Wx + (Wp + b): the bracket has no data in it and is a constant in an export.
            bias = F.linear(position, weight, bias)
        length, _ = static_shape(x)
        x = x @ weight.t() + bias
        return x.reshape(-1, length, self.heads, self.channels // self.heads).transpose(1, 2)


class CrossAttentionLayer(nn.Module):
    """Queries look at the pixels of one map, each inside its own mask."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.pre_norm = spec.pre_norm
        self.multihead_attn = MultiheadAttention(spec.channels, spec.heads)
        self.norm = nn.LayerNorm(spec.channels)

    def forward(self, queries: Tensor, position: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """``queries`` (B, Q, C), ``position`` (1, Q, C), ``key``, ``value`` (B, L, C), ``bias`` (B, 1, Q, L) ->
        (B, Q, C)."""
        x = self.norm(queries) if self.pre_norm else queries
        x = queries + self.multihead_attn(x, key, value, position, bias=bias)
        return x if self.pre_norm else cast(Tensor, self.norm(x))


class SelfAttentionLayer(nn.Module):
    """Queries look at each other."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.pre_norm = spec.pre_norm
        self.self_attn = MultiheadAttention(spec.channels, spec.heads)
        self.norm = nn.LayerNorm(spec.channels)

    def forward(self, queries: Tensor, position: Tensor) -> Tensor:
        """``queries`` (B, Q, C), ``position`` (1, Q, C) -> (B, Q, C)."""
        x = self.norm(queries) if self.pre_norm else queries
        x = queries + self.self_attn(x, x, x, position, position)
        return x if self.pre_norm else cast(Tensor, self.norm(x))


class FFNLayer(nn.Module):
    """Two linear layers around a ReLU."""

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        self.pre_norm = spec.pre_norm
        self.linear1 = nn.Linear(spec.channels, spec.feedforward)
        self.linear2 = nn.Linear(spec.feedforward, spec.channels)
        self.norm = nn.LayerNorm(spec.channels)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(self, queries: Tensor) -> Tensor:
        """(B, Q, C) -> (B, Q, C)."""
        x = self.norm(queries) if self.pre_norm else queries
        x = queries + self.linear2(F.relu(self.linear1(x)))
        return x if self.pre_norm else cast(Tensor, self.norm(x))


class MLP(nn.Module):
    """Three linear layers with ReLUs between them."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        widths = (channels, channels, channels, out_channels)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C')."""
        first, second, last = self.layers
        return cast(Tensor, last(F.relu(second(F.relu(first(x))))))


class MultiScaleMaskedTransformerDecoder(nn.Module):
    """Learned queries pick up what they need from the maps, layer by layer, and become class and mask predictions."""

    def __init__(self, spec: DecoderSpec, in_channels: int, mask_channels: int, num_classes: int) -> None:
        super().__init__()
        self.channels = spec.channels
        self.mask_channels = mask_channels
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(spec) for _ in range(spec.layers))
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(spec) for _ in range(spec.layers))
        self.transformer_ffn_layers = nn.ModuleList(FFNLayer(spec) for _ in range(spec.layers))
        self.decoder_norm = nn.LayerNorm(spec.channels)
        self.query_feat = nn.Embedding(spec.queries, spec.channels)
        self.query_embed = nn.Embedding(spec.queries, spec.channels)
        self.level_embed = nn.Embedding(LEVELS, spec.channels)
        self.input_proj = nn.ModuleList()
        for _ in range(LEVELS):
            if in_channels == spec.channels and not spec.enforce_input_proj:
                self.input_proj.append(nn.Identity())
            else:
                projection = nn.Conv2d(in_channels, spec.channels, 1)
                init_c2_xavier(projection)
                self.input_proj.append(projection)
        self.class_embed = nn.Linear(spec.channels, num_classes + 1)
        self.mask_embed = MLP(spec.channels, mask_channels)

    def forward(self, mask_features: Tensor, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """``mask_features`` (B, M, H/4, W/4), ``maps`` (B, C, H_i, W_i) of res5, res4, res3 -> class_logits
        (B, Q, K+1), mask_logits (B, Q, H/4, W/4)."""
        return self.predict(self.query_states(mask_features, maps)[-1], mask_features)

    def layer_outputs(self, mask_features: Tensor, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The predictions from the learned queries, then from each layer: what training supervises."""
        return [self.predict(state, mask_features) for state in self.query_states(mask_features, maps)]

    def predict(self, state: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
        """A query state (B, Q, C) -> class_logits (B, Q, K+1), mask_logits (B, Q, H/4, W/4)."""
        mask_logits = self.mask_embed(state) @ _flat(mask_features)
        queries, _ = static_shape(state)
        return self.class_embed(state), mask_logits.reshape(-1, queries, *map_size(mask_features))

    def query_states(self, mask_features: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
        """The normalised queries (B, Q, C) before the first layer and after each."""
        keys, values, pixels = [], [], []
        for level, (x, project) in enumerate(zip(maps, self.input_proj, strict=True)):
            size = map_size(x)
            tokens = to_tokens(project(x))
            # Positions are added once per map: their product with each layer's key weights would be another constant
            # as large as the map per layer, and its addition would cost as much as this one.
            place = self.level_embed.weight[level] + sine_positions(size, self.channels, x)
            keys.append(tokens + place)
            values.append(tokens + self.level_embed.weight[level])
            # Resizing is linear over space, so the mask at this map's size is the product with resized features.
            # Which pixels a mask blocks is a step function: no gradient passes.
            pixels.append(_flat(resize_bilinear(mask_features.detach(), size)))

        queries = self.query_feat.weight[None]
        position = self.query_embed.weight[None]
        states = [self.decoder_norm(queries)]
        layers = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for index, (cross_attention, self_attention, feed_forward) in enumerate(layers):
            level = index % LEVELS
            bias = attention_bias(self.mask_embed(states[-1].detach()) @ pixels[level])
            queries = cross_attention(queries, position, keys[level], values[level], bias)
            queries = feed_forward(self_attention(queries, position))
            states.append(self.decoder_norm(queries))
        states[0] = states[0].expand(mask_features.shape[0], -1, -1)
        return states
