"""The architecture of a network, as read from the YAML; the official key of each field stands in brackets.

Widths that do not fit together are a ValueError that names the key.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "GROUPS",
    "BackboneSpec",
    "DecoderSpec",
    "ModelSpec",
    "PixelDecoderSpec",
    "ProScaleSpec",
    "ResNetSpec",
    "SwinSpec",
]

GROUPS = 32
"""Of every group norm in the official pixel decoders."""


@dataclass(frozen=True)
class ResNetSpec:
    """detectron2's ``build_resnet_backbone`` with bottleneck blocks (MODEL.RESNETS)."""

    depth: Literal[50, 101, 152]
    stem_channels: int
    res2_channels: int
    width_per_group: int
    groups: int
    stride_in_1x1: bool
    res5_dilation: Literal[1, 2]
    """2 keeps res5 at stride 16."""

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of res2, res3, res4, res5."""
        c = self.res2_channels
        return c, 2 * c, 4 * c, 8 * c


@dataclass(frozen=True)
class SwinSpec:
    """Mask2Former's ``D2SwinTransformer`` (MODEL.SWIN)."""

    embed_dim: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: int
    pretrain_size: int
    patch_size: Literal[4]
    """The stride of res2, on which the masks rely."""
    mlp_ratio: float
    qkv_bias: bool
    qk_scale: float | None
    absolute_positions: bool
    """A learned position table added to the patches (APE)."""
    patch_norm: bool

    def __post_init__(self) -> None:
        if any(channels % heads for channels, heads in zip(self.channels, self.heads, strict=True)):
            raise ValueError(
                f"MODEL.SWIN.NUM_HEADS is {list(self.heads)}; supported: "
                f"divisors of EMBED_DIM ({self.embed_dim}) times 1, 2, 4, 8"
            )

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of res2, res3, res4, res5."""
        c = self.embed_dim
        return c, 2 * c, 4 * c, 8 * c


BackboneSpec = ResNetSpec | SwinSpec


@dataclass(frozen=True)
class ProScaleSpec:
    """What PRO-SCALE changes in the pixel decoder (MODEL.PROSCALE)."""

    stage_layers: tuple[int, int, int]
    """Encoder layers on res5 alone, on res5+res4, on all three maps (PROSCALE_NUM_LAYERS)."""
    residual: bool
    """Add a stage's input again after each of its layers, stages 1 and 2 (RESIDUAL)."""
    recalibration: Literal["linear", "conv", "none"]
    """Token re-calibration, TRC (IS_EXCITE_CONV: False, True, None)."""
    temperature: float
    """Factor on the gate's logit (EXCITE_TEMP)."""
    mask_op: Literal["maxpool", "conv"]
    """Light pixel embedding, LPE, or the 3x3 convolution it replaces (MASK_OUTPUT_OPS)."""


@dataclass(frozen=True)
class PixelDecoderSpec:
    """The multi-scale deformable-attention encoder and the step to stride 4 (MODEL.SEM_SEG_HEAD)."""

    channels: int
    """Width of the encoder (CONVS_DIM)."""
    mask_channels: int
    """Channels of mask_features (MASK_DIM)."""
    norm: Literal["GN", ""]
    heads: int
    points: int
    feedforward: int
    """1024: the official code fixes it, whatever the YAML says."""
    layers: int
    """Encoder layers, all on three maps, of a plain Mask2Former (TRANSFORMER_ENC_LAYERS)."""
    proscale: ProScaleSpec | None
    """None: Mask2Former's own MSDeformAttnPixelDecoder."""

    def __post_init__(self) -> None:
        if self.channels % GROUPS or self.channels % self.heads:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.CONVS_DIM is {self.channels}; supported: "
                f"multiples of {GROUPS} (group norm) and of MODEL.MASK_FORMER.NHEADS ({self.heads})"
            )


@dataclass(frozen=True)
class DecoderSpec:
    """The masked-attention transformer decoder (MODEL.MASK_FORMER)."""

    channels: int
    queries: int
    heads: int
    feedforward: int
    layers: int
    """DEC_LAYERS - 1, as in the official code."""
    pre_norm: bool
    enforce_input_proj: bool

    def __post_init__(self) -> None:
        if self.channels % 4 or self.channels % self.heads:
            raise ValueError(
                f"MODEL.MASK_FORMER.HIDDEN_DIM is {self.channels}; supported: "
                f"multiples of 4 (position embedding) and of MODEL.MASK_FORMER.NHEADS ({self.heads})"
            )


@dataclass(frozen=True)
class ModelSpec:
    """A whole network: image (B, 3, H, W) -> class_logits (B, Q, K+1), mask_logits (B, Q, H/4, W/4)."""

    backbone: BackboneSpec
    pixel_decoder: PixelDecoderSpec
    decoder: DecoderSpec
    num_classes: int
    """K, without "no object" (SEM_SEG_HEAD.NUM_CLASSES)."""
