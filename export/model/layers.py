"""Small pieces shared by backbones and heads: static sizes, resizing, convolution with normalisation."""

import warnings
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from proscale_deploy.core.types import Size

__all__ = [
    "ConvNorm",
    "constant",
    "init_c2_xavier",
    "map_size",
    "resize_bilinear",
    "static_shape",
    "to_map",
    "to_tokens",
]


def static_shape(x: Tensor) -> tuple[int, ...]:
    """The sizes of ``x`` without the first, the batch, as Python numbers, also while a graph is traced for ONNX.

    They are fixed in an exported network, so the tracer's warning that a size becomes a constant is what is wanted;
    the batch size is never asked for, so it stays dynamic.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return tuple(int(size) for size in x.shape[1:])


def constant(array: NDArray[Any], device: torch.device) -> Tensor:
    """``array`` as a tensor that is a constant in an exported graph; the tracer's warning says just that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.from_numpy(array).to(device)


def map_size(x: Tensor) -> Size:
    """Height and width of a map (B, C, H, W)."""
    _, height, width = static_shape(x)
    return height, width


def resize_bilinear(x: Tensor, size: Size) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), half-pixel centres, no antialiasing (``align_corners=False``).

    Written with scales because sizes would need the batch size, hence shape arithmetic in the exported graph. Maps of
    one network differ by powers of two, for which scales are exact.
    """
    height, width = map_size(x)
    if (height, width) == size:
        return x
    scale = [size[0] / height, size[1] / width]
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, C, H, W) -> tokens (B, H*W, C), rows first."""
    channels, height, width = static_shape(x)
    return x.reshape(-1, channels, height * width).transpose(1, 2)


def to_map(x: Tensor, size: Size) -> Tensor:
    """Tokens (B, H*W, C) -> a map (B, C, H, W)."""
    _, channels = static_shape(x)
    return x.transpose(1, 2).reshape(-1, channels, *size)


def init_c2_xavier(conv: nn.Conv2d) -> None:
    """Caffe2's XavierFill, the official start value of the heads' convolutions (``fvcore.nn.weight_init``)."""
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class ConvNorm(nn.Conv2d):
    """detectron2's ``Conv2d``: a convolution that owns its normalisation as ``norm``; a bias only without one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        norm: nn.Module | None,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=norm is None)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        x = super().forward(x)
        return x if self.norm is None else cast(Tensor, self.norm(x))
