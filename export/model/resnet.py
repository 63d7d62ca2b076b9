"""ResNet with bottleneck blocks, as detectron2's ``build_resnet_backbone`` builds it."""

from torch import Tensor, nn
from torch.nn import functional as F

from proscale_deploy.core.spec import ResNetSpec
from proscale_deploy.export.model.layers import ConvNorm

__all__ = ["ResNet"]

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of res2..res5 by depth."""


def _conv_norm(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> ConvNorm:
    # In eval mode BatchNorm2d is detectron2's FrozenBatchNorm2d: same entries, same eps of 1e-5.
    norm = nn.BatchNorm2d(out_channels)
    conv = ConvNorm(in_channels, out_channels, kernel, norm, stride, dilation, groups)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class BasicStem(nn.Module):
    """7x7 convolution and 3x3 max-pool, each of stride 2."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm(3, out_channels, kernel=7, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H/4, W/4)."""
        return F.max_pool2d(F.relu(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a shortcut (He et al. 2015, arXiv 1512.03385, figure 5)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bottleneck_channels: int,
        *,
        stride: int,
        dilation: int,
        groups: int,
        stride_in_1x1: bool,
    ) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        # detectron2's rule. Where the channels agree the stride is 1: channels double wherever a stage has a stride.
        self.shortcut = _conv_norm(in_channels, out_channels, 1, stride) if in_channels != out_channels else None
        self.conv1 = _conv_norm(in_channels, bottleneck_channels, 1, stride_1x1)
        self.conv2 = _conv_norm(bottleneck_channels, bottleneck_channels, 3, stride_3x3, dilation, groups)
        self.conv3 = _conv_norm(bottleneck_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H/stride, W/stride)."""
        y = F.relu(self.conv1(x))
        y = F.relu(self.conv2(y))
        y = self.conv3(y)
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(nn.Module):
    """ResNet-50/101/152 (ResNeXt with ``groups`` > 1) giving the maps of res2, res3, res4 and res5."""

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        res2, res3, res4, res5 = spec.channels
        self.stem = BasicStem(spec.stem_channels)
        self.res2 = self._stage(spec, 0, spec.stem_channels, res2)
        self.res3 = self._stage(spec, 1, res2, res3)
        self.res4 = self._stage(spec, 2, res3, res4)
        self.res5 = self._stage(spec, 3, res4, res5)

    @staticmethod
    def _stage(spec: ResNetSpec, index: int, in_channels: int, out_channels: int) -> nn.Sequential:
        dilation = spec.res5_dilation if index == 3 else 1
        stride = 1 if index == 0 or dilation == 2 else 2
        return nn.Sequential(
            *(
                BottleneckBlock(
                    out_channels if block else in_channels,
                    out_channels,
                    spec.groups * spec.width_per_group * 2**index,
                    stride=1 if block else stride,
                    dilation=dilation,
                    groups=spec.groups,
                    stride_in_1x1=spec.stride_in_1x1,
                )
                for block in range(BLOCKS[spec.depth][index])
            )
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) -> maps (B, C_i, H/s, W/s) at strides s = 4, 8, 16, 32 (res5: 16 if dilated)."""
        res2 = self.res2(self.stem(image))
        res3 = self.res3(res2)
        res4 = self.res4(res3)
        return res2, res3, res4, self.res5(res4)
