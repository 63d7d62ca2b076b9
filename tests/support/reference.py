"""Golden outputs of the official implementation: cases, their synthetic weights, their inputs (tests/reference)."""

import json
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from proscale_deploy.core.spec import (
    DecoderSpec,
    ModelSpec,
    PixelDecoderSpec,
    ProScaleSpec,
    ResNetSpec,
    SwinSpec,
)

__all__ = [
    "CASES",
    "REFERENCE",
    "SMALL",
    "SMALL_RESNET",
    "SMALL_SWIN",
    "Case",
    "load_case",
    "relative_l2",
    "state_dict_entries",
    "synthetic_weights",
]

REFERENCE = Path(__file__).parents[1] / "reference"

RESNET_50 = ResNetSpec(
    depth=50,
    stem_channels=64,
    res2_channels=256,
    width_per_group=64,
    groups=1,
    stride_in_1x1=False,
    res5_dilation=1,
)
SWIN_TINY = SwinSpec(
    embed_dim=96,
    depths=(2, 2, 6, 2),
    heads=(3, 6, 12, 24),
    window=7,
    pretrain_size=224,
    patch_size=4,
    mlp_ratio=4.0,
    qkv_bias=True,
    qk_scale=None,
    absolute_positions=False,
    patch_norm=True,
)
PROSCALE_333 = ProScaleSpec(
    stage_layers=(3, 3, 3), residual=False, recalibration="linear", temperature=0.1, mask_op="maxpool"
)
R50_333 = ModelSpec(
    backbone=RESNET_50,
    pixel_decoder=PixelDecoderSpec(
        channels=256, mask_channels=256, norm="GN", heads=8, points=4, feedforward=1024, layers=6, proscale=PROSCALE_333
    ),
    decoder=DecoderSpec(
        channels=256, queries=100, heads=8, feedforward=2048, layers=9, pre_norm=False, enforce_input_proj=False
    ),
    num_classes=133,
)

SMALL_RESNET = replace(RESNET_50, stem_channels=8, res2_channels=16, width_per_group=4)
SMALL_SWIN = replace(SWIN_TINY, embed_dim=16, depths=(2, 1, 3, 2), heads=(1, 2, 4, 4))
SMALL = ModelSpec(
    backbone=SMALL_RESNET,
    pixel_decoder=replace(R50_333.pixel_decoder, channels=64, mask_channels=32, heads=4),
    decoder=replace(R50_333.decoder, channels=64, queries=7, heads=4, feedforward=96, layers=4),
    num_classes=5,
)

CASES = {
    "r50_proscale_3_3_3": R50_333,
    "swint_proscale_3_3_3": replace(R50_333, backbone=SWIN_TINY),
    "r50_proscale_1_2_3_residual_conv": replace(
        R50_333,
        pixel_decoder=replace(
            R50_333.pixel_decoder,
            proscale=ProScaleSpec(
                stage_layers=(1, 2, 3), residual=True, recalibration="conv", temperature=0.5, mask_op="conv"
            ),
        ),
    ),
    "r50_mask2former": replace(R50_333, pixel_decoder=replace(R50_333.pixel_decoder, proscale=None)),
    "resnext101_dilated_stages_0_2_1": replace(
        SMALL,
        # Its YAML asks for RES4_DILATION 2 and RES5_MULTI_GRID [1, 2, 4], which build_resnet_backbone does not read.
        backbone=replace(SMALL_RESNET, depth=101, groups=2, stride_in_1x1=True, res5_dilation=2),
        pixel_decoder=replace(
            SMALL.pixel_decoder,
            norm="",
            proscale=replace(PROSCALE_333, stage_layers=(0, 2, 1), residual=True, recalibration="none"),
        ),
        decoder=replace(SMALL.decoder, channels=48, pre_norm=True),
    ),
    "swin_absolute_positions_window_5": replace(
        SMALL,
        backbone=replace(
            SMALL_SWIN,
            window=5,
            pretrain_size=64,
            mlp_ratio=2.5,
            qkv_bias=False,
            qk_scale=0.3,
            absolute_positions=True,
            patch_norm=False,
        ),
        pixel_decoder=replace(SMALL.pixel_decoder, layers=2, proscale=None),
        decoder=replace(SMALL.decoder, enforce_input_proj=True),
    ),
    "swin_window_12_no_decoder_layers": replace(
        SMALL,
        backbone=replace(SMALL_SWIN, window=12),
        pixel_decoder=replace(
            SMALL.pixel_decoder,
            proscale=replace(PROSCALE_333, stage_layers=(1, 1, 0), recalibration="conv", temperature=2.0),
        ),
        decoder=replace(SMALL.decoder, layers=0),
    ),
    "resnet152_one_row_stages_2_0_0": replace(
        SMALL,
        backbone=replace(SMALL_RESNET, depth=152, stem_channels=16),
        pixel_decoder=replace(
            SMALL.pixel_decoder,
            norm="",
            proscale=replace(PROSCALE_333, stage_layers=(2, 0, 0), residual=True, mask_op="conv"),
        ),
    ),
}
"""Name -> architecture, by hand: independent of the YAML reader."""


@dataclass(frozen=True)
class Case:
    """One golden case: the official state dict and what the official model gave with it."""

    name: str
    spec: ModelSpec
    weights: dict[str, Tensor]
    image: Tensor
    """(1, 3, H, W) float32, normalised and padded."""
    golden: dict[str, np.ndarray]
    """See tests/reference/README.md."""


def load_case(name: str) -> Case:
    with np.load(REFERENCE / name / "golden.npz") as file:
        golden = dict(file)
    mean = torch.tensor([123.675, 116.280, 103.530])[:, None, None]
    std = torch.tensor([58.395, 57.120, 57.375])[:, None, None]
    image = (torch.from_numpy(golden.pop("image")) - mean) / std
    image = torch.nn.functional.pad(image, (0, -image.shape[2] % 32, 0, -image.shape[1] % 32))
    return Case(name, CASES[name], synthetic_weights(state_dict_entries(name)), image[None], golden)


def state_dict_entries(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Entries of the official state dict: name -> (shape, dtype)."""
    entries = json.loads((REFERENCE / name / "state_dict.json").read_text())
    return {key: (tuple(shape), dtype) for key, (shape, dtype) in entries.items()}


def synthetic_weights(entries: dict[str, tuple[tuple[int, ...], str]]) -> dict[str, Tensor]:
    """The weights of the golden runs, made from names and shapes; integer entries are left out."""
    return {
        name: torch.from_numpy(_weight(name, shape)) for name, (shape, dtype) in entries.items() if "int" not in dtype
    }


def _weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    # RandomState, not default_rng: the golden files were made with its stream, which numpy keeps unchanged.
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        return 1 + 0.2 * np.abs(noise)
    if last == "running_mean":
        return 0.1 * noise
    if last == "relative_position_bias_table":
        return 0.5 * noise
    if last == "level_embed" or any(part in name for part in ("query_feat", "query_embed", ".level_embed.")):
        return noise
    if len(shape) <= 1 and last == "bias":
        scale = 2 if "sampling_offsets" in name else 0.5 if "attention_weights" in name else 0.1
        return scale * noise
    if len(shape) <= 1:
        return (1 + 0.1 * noise) * (0.3 if name.endswith("conv3.norm.weight") else 1)
    gain = 3 if name.endswith("class_embed.weight") else 1.2
    return (gain * noise / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def relative_l2(found: Tensor | np.ndarray, expected: Tensor | np.ndarray) -> float:
    """|found - expected| / |expected| in float64."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
