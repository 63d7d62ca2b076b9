"""The pixel decoder: backbone maps in, encoded maps and per-pixel embeddings at stride 4 out."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from proscale_deploy.core.spec import GROUPS, PixelDecoderSpec
from proscale_deploy.export.model.encoder import DeformableTransformer
from proscale_deploy.export.model.layers import ConvNorm, init_c2_xavier, map_size, resize_bilinear

__all__ = ["PixelDecoder"]


class MaxPoolNorm(nn.Module):
    """LPE, light pixel embedding: a 3x3 max-pool where Mask2Former has a 3x3 convolution (arXiv 2404.14657)."""

    def __init__(self, norm: nn.Module | None) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> same shape."""
        x = F.max_pool2d(x, kernel_size=3, stride=1, padding=1)
        return x if self.norm is None else cast(Tensor, self.norm(x))


def _input_projection(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, channels))


class PixelDecoder(nn.Module):
    """Official: ``MSDeformAttnPixelDecoder`` (Mask2Former) and ``PROSCALE``, with one encoder and ``layer_1`` each."""

    def __init__(self, spec: PixelDecoderSpec, backbone_channels: Sequence[int]) -> None:
        """``backbone_channels``: of res2, res3, res4, res5."""
        super().__init__()
        res2, *encoded = backbone_channels
        self.input_proj = nn.ModuleList(_input_projection(channels, spec.channels) for channels in reversed(encoded))
        self.transformer = DeformableTransformer(spec)

        def norm() -> nn.Module | None:
            return nn.GroupNorm(GROUPS, spec.channels) if spec.norm == "GN" else None

        self.adapter_1 = ConvNorm(res2, spec.channels, 1, norm())
        init_c2_xavier(self.adapter_1)
        self.layer_1: ConvNorm | MaxPoolNorm
        if spec.proscale is not None and spec.proscale.mask_op == "maxpool":
            self.layer_1 = MaxPoolNorm(norm())
        else:
            self.layer_1 = ConvNorm(spec.channels, spec.channels, 3, norm())
            init_c2_xavier(self.layer_1)
        self.mask_features = nn.Conv2d(spec.channels, spec.mask_channels, 1)
        init_c2_xavier(self.mask_features)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Maps of res2..res5 -> mask_features (B, M, H/4, W/4), encoded maps of res5, res4, res3 (B, C, H_i, W_i)."""
        res2, *encoded = features
        maps = [project(x) for project, x in zip(self.input_proj, reversed(encoded), strict=True)]
        maps = self.transformer(maps, [map_size(x) for x in maps])
        x = self.adapter_1(res2)
        x = F.relu(self.layer_1(x + resize_bilinear(maps[-1], map_size(x))))
        return self.mask_features(x), maps
