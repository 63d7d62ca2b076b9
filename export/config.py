"""A detectron2 YAML configuration -> what the network is, what it takes, and how its outputs are read.

Keys that a file omits have the defaults of the official code (detectron2's ``get_cfg`` and ``add_maskformer2_config``);
where such a default is nothing that can be exported (META_ARCHITECTURE is GeneralizedRCNN there), the key is required.
Keys that only matter in training are ignored.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from proscale_deploy.core.errors import CheckpointError
from proscale_deploy.core.spec import (
    BackboneSpec,
    DecoderSpec,
    ModelSpec,
    PixelDecoderSpec,
    ProScaleSpec,
    ResNetSpec,
    SwinSpec,
)
from proscale_deploy.core.types import InputSpec, Task, Thresholds
from proscale_deploy.export.yaml_files import REQUIRED, Keys, read_yaml

__all__ = ["Config", "architecture_name", "load_config"]

_STRIDE = 32
"""Of the coarsest feature map: every network input is a multiple of it."""
_ENCODER_FEEDFORWARD = 1024
_ENCODER_POINTS = 4
"""Both are fixed in the official pixel decoders (``from_config`` of PROSCALE and MSDeformAttnPixelDecoder), whatever
DIM_FEEDFORWARD and DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS say; heads are MASK_FORMER.NHEADS, not ..._N_HEADS."""

_HEAD = "MODEL.SEM_SEG_HEAD"
_FORMER = "MODEL.MASK_FORMER"
_NORMS: Final[tuple[Literal["GN", ""], ...]] = ("GN", "")
_MASK_OPS: Final[tuple[Literal["maxpool", "conv"], ...]] = ("maxpool", "conv")
_CHANNELS: Final[tuple[Literal["RGB", "BGR"], ...]] = ("RGB", "BGR")
_RECALIBRATIONS: Final[dict[bool | None, Literal["linear", "conv", "none"]]] = {
    False: "linear",
    True: "conv",
    None: "none",
}
_SWIN_NAMES = {
    (96, (2, 2, 6, 2)): "Swin-T",
    (96, (2, 2, 18, 2)): "Swin-S",
    (128, (2, 2, 18, 2)): "Swin-B",
    (192, (2, 2, 18, 2)): "Swin-L",
}


@dataclass(frozen=True)
class Config:
    """One configuration file, read and checked."""

    model: ModelSpec
    input: InputSpec
    """Height and width are those of the test-time resizing rule, rounded up: MIN_SIZE_TEST x MAX_SIZE_TEST, and
    MAX_SIZE_TEST for both where a MIN_SIZE_TEST of 0 switches resizing off."""
    thresholds: Thresholds
    dataset: str | None
    """The data set it was trained on (first of DATASETS.TRAIN, else of DATASETS.TEST), which names the classes."""
    sha256: str
    """Of the file and its bases, hexadecimal."""


def load_config(path: Path) -> Config:
    """Read the YAML of an official PRO-SCALE or Mask2Former model, short (with ``_BASE_``) or as dumped in full.

    Raises:
        CheckpointError: the file cannot be read, misses a key, or describes something that is not supported.
    """
    tree, sha256 = read_yaml(path)
    keys = Keys(tree, path)
    try:
        model = _model(keys)
    except ValueError as error:  # widths that do not fit together
        raise CheckpointError(f"{path}: {error}") from error
    return Config(model, _input(keys), _thresholds(keys), _dataset(keys), sha256)


def architecture_name(spec: ModelSpec) -> str:
    """One line for people: "PRO-SCALE 3-3-3, ResNet-50", "Mask2Former, Swin-T"."""
    proscale = spec.pixel_decoder.proscale
    method = "Mask2Former" if proscale is None else f"PRO-SCALE {'-'.join(map(str, proscale.stage_layers))}"
    backbone = spec.backbone
    if isinstance(backbone, SwinSpec):
        unnamed = f"Swin {backbone.embed_dim} {'-'.join(map(str, backbone.depths))}"
        return f"{method}, {_SWIN_NAMES.get((backbone.embed_dim, backbone.depths), unnamed)}"
    if (backbone.groups, backbone.width_per_group, backbone.res2_channels) == (1, 64, 256):
        return f"{method}, ResNet-{backbone.depth}"
    widths = f"{backbone.groups}x{backbone.width_per_group}d, {backbone.res2_channels} channels"
    return f"{method}, ResNet-{backbone.depth} ({widths})"


def _model(keys: Keys) -> ModelSpec:
    masked_attention = "MultiScaleMaskedTransformerDecoder"
    keys.one_of("MODEL.META_ARCHITECTURE", ("MaskFormer",))
    keys.one_of(f"{_HEAD}.NAME", ("MaskFormerHead",))
    keys.one_of(f"{_FORMER}.TRANSFORMER_DECODER_NAME", (masked_attention,), masked_attention)
    keys.one_of(f"{_FORMER}.TRANSFORMER_IN_FEATURE", ("multi_scale_pixel_decoder",))
    return ModelSpec(
        backbone=_backbone(keys),
        pixel_decoder=_pixel_decoder(keys),
        decoder=_decoder(keys),
        num_classes=keys.integer(f"{_HEAD}.NUM_CLASSES"),
    )


def _backbone(keys: Keys) -> BackboneSpec:
    resnet, swin = "build_resnet_backbone", "D2SwinTransformer"
    name = keys.one_of("MODEL.BACKBONE.NAME", (resnet, swin), resnet)
    return _swin(keys) if name == swin else _resnet(keys)


def _resnet(keys: Keys) -> ResNetSpec:
    resnet = "MODEL.RESNETS"
    # In inference these are one operation, with the same entries in a checkpoint.
    keys.one_of(f"{resnet}.NORM", ("FrozenBN", "BN", "SyncBN", "nnSyncBN", "naiveSyncBN"), "FrozenBN")
    deformable = keys.value(f"{resnet}.DEFORM_ON_PER_STAGE", ())
    if not isinstance(deformable, list | tuple) or any(deformable):
        raise keys.refuse(f"{resnet}.DEFORM_ON_PER_STAGE", deformable, "False for every stage")
    _maps(keys, f"{resnet}.OUT_FEATURES", ("res2", "res3", "res4", "res5"))
    return ResNetSpec(
        depth=keys.one_of(f"{resnet}.DEPTH", (50, 101, 152), 50),
        stem_channels=keys.integer(f"{resnet}.STEM_OUT_CHANNELS", 64),
        res2_channels=keys.integer(f"{resnet}.RES2_OUT_CHANNELS", 256),
        width_per_group=keys.integer(f"{resnet}.WIDTH_PER_GROUP", 64),
        groups=keys.integer(f"{resnet}.NUM_GROUPS", 1),
        stride_in_1x1=keys.flag(f"{resnet}.STRIDE_IN_1X1", True),
        # build_resnet_backbone reads none of STEM_TYPE, RES4_DILATION and RES5_MULTI_GRID: those are DeepLab's.
        res5_dilation=keys.one_of(f"{resnet}.RES5_DILATION", (1, 2), 1),
    )


def _swin(keys: Keys) -> SwinSpec:
    swin = "MODEL.SWIN"
    _maps(keys, f"{swin}.OUT_FEATURES", ("res2", "res3", "res4", "res5"), ("res2", "res3", "res4", "res5"))
    keys.one_of(f"{swin}.PATCH_SIZE", (4,), 4)
    d2, d3, d4, d5 = keys.integers(f"{swin}.DEPTHS", 4, (2, 2, 6, 2))
    h2, h3, h4, h5 = keys.integers(f"{swin}.NUM_HEADS", 4, (3, 6, 12, 24))
    scale = keys.value(f"{swin}.QK_SCALE", None)
    return SwinSpec(
        embed_dim=keys.integer(f"{swin}.EMBED_DIM", 96),
        depths=(d2, d3, d4, d5),
        heads=(h2, h3, h4, h5),
        window=keys.integer(f"{swin}.WINDOW_SIZE", 7),
        pretrain_size=keys.integer(f"{swin}.PRETRAIN_IMG_SIZE", 224),
        patch_size=4,
        mlp_ratio=keys.number(f"{swin}.MLP_RATIO", 4.0, minimum=0.0),
        qkv_bias=keys.flag(f"{swin}.QKV_BIAS", True),
        qk_scale=None if scale is None else keys.number(f"{swin}.QK_SCALE", minimum=0.0),
        absolute_positions=keys.flag(f"{swin}.APE", False),
        patch_norm=keys.flag(f"{swin}.PATCH_NORM", True),
    )


def _pixel_decoder(keys: Keys) -> PixelDecoderSpec:
    proscale, plain = "PROSCALE", "MSDeformAttnPixelDecoder"
    name = keys.one_of(f"{_HEAD}.PIXEL_DECODER_NAME", (proscale, plain))
    _maps(keys, f"{_HEAD}.IN_FEATURES", ("res2", "res3", "res4", "res5"))
    encoded = ("res3", "res4", "res5")
    _maps(keys, f"{_HEAD}.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES", encoded, encoded)
    keys.one_of(f"{_HEAD}.COMMON_STRIDE", (4,), 4)
    return PixelDecoderSpec(
        channels=keys.integer(f"{_HEAD}.CONVS_DIM", 128),
        mask_channels=keys.integer(f"{_HEAD}.MASK_DIM", 256),
        norm=keys.one_of(f"{_HEAD}.NORM", _NORMS, "GN"),
        heads=keys.integer(f"{_FORMER}.NHEADS", 8),
        points=_ENCODER_POINTS,
        feedforward=_ENCODER_FEEDFORWARD,
        layers=keys.integer(f"{_HEAD}.TRANSFORMER_ENC_LAYERS", 0, minimum=0),
        proscale=_proscale(keys) if name == proscale else None,
    )


def _proscale(keys: Keys) -> ProScaleSpec:
    first, second, third = keys.integers("MODEL.PROSCALE.PROSCALE_NUM_LAYERS", 3, (1, 1, 1), minimum=0)
    return ProScaleSpec(
        stage_layers=(first, second, third),
        residual=keys.flag("MODEL.PROSCALE.RESIDUAL", False),
        recalibration=_RECALIBRATIONS[keys.one_of("MODEL.PROSCALE.IS_EXCITE_CONV", (False, True, None), False)],
        temperature=keys.number("MODEL.PROSCALE.EXCITE_TEMP", 1.0),
        mask_op=keys.one_of("MODEL.PROSCALE.MASK_OUTPUT_OPS", _MASK_OPS, "maxpool"),
    )


def _decoder(keys: Keys) -> DecoderSpec:
    return DecoderSpec(
        channels=keys.integer(f"{_FORMER}.HIDDEN_DIM", 256),
        queries=keys.integer(f"{_FORMER}.NUM_OBJECT_QUERIES", 100),
        heads=keys.integer(f"{_FORMER}.NHEADS", 8),
        feedforward=keys.integer(f"{_FORMER}.DIM_FEEDFORWARD", 2048),
        # The last of the DEC_LAYERS losses is that of the learned queries, before any layer.
        layers=keys.integer(f"{_FORMER}.DEC_LAYERS", 6) - 1,
        pre_norm=keys.flag(f"{_FORMER}.PRE_NORM", False),
        enforce_input_proj=keys.flag(f"{_FORMER}.ENFORCE_INPUT_PROJ", False),
    )


def _maps(keys: Keys, key: str, needed: tuple[str, ...], default: Any = REQUIRED) -> None:
    """Feature maps are sorted by stride in the official code, so their order in the file means nothing."""
    found = keys.names(key, default)
    if sorted(found) != sorted(needed):
        raise keys.refuse(key, list(found), str(list(needed)))


def _input(keys: Keys) -> InputSpec:
    # A negative value means the backbone's own, 0 (ResNet) or 32 (Swin).
    divisibility = math.lcm(_STRIDE, max(keys.integer(f"{_FORMER}.SIZE_DIVISIBILITY", 32, minimum=-1), 0) or _STRIDE)
    shortest = keys.integer("INPUT.MIN_SIZE_TEST", 800, minimum=0)
    longest = keys.integer("INPUT.MAX_SIZE_TEST", 1333)
    std = keys.numbers("MODEL.PIXEL_STD", 3, (1.0, 1.0, 1.0))
    if min(std) <= 0:
        raise keys.refuse("MODEL.PIXEL_STD", list(std), "3 positive numbers")
    mean = keys.numbers("MODEL.PIXEL_MEAN", 3, (103.53, 116.28, 123.675))
    return InputSpec(
        height=-(-min(shortest or longest, longest) // divisibility) * divisibility,
        width=-(-longest // divisibility) * divisibility,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        channels=keys.one_of("INPUT.FORMAT", _CHANNELS, "BGR"),
        shortest_edge=shortest,
        longest_edge=longest,
        size_divisibility=divisibility,
    )


def _thresholds(keys: Keys) -> Thresholds:
    test = f"{_FORMER}.TEST"
    switches: dict[Task, bool] = {
        "panoptic": keys.flag(f"{test}.PANOPTIC_ON", False),
        "instance": keys.flag(f"{test}.INSTANCE_ON", False),
        "semantic": keys.flag(f"{test}.SEMANTIC_ON", True),
    }
    if not any(switches.values()):
        raise keys.refuse(f"{test}.SEMANTIC_ON", False, "at least one of SEMANTIC_ON, INSTANCE_ON and PANOPTIC_ON True")
    resize_first = keys.flag(f"{test}.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE", False)
    return Thresholds(
        object_mask=keys.number(f"{test}.OBJECT_MASK_THRESHOLD", 0.0, 0.0, 1.0),
        overlap=keys.number(f"{test}.OVERLAP_THRESHOLD", 0.0, 0.0, 1.0),
        max_instances=keys.integer("TEST.DETECTIONS_PER_IMAGE", 100),
        tasks=tuple(task for task, on in switches.items() if on),
        resize_masks_first=resize_first or switches["panoptic"] or switches["instance"],
    )


def _dataset(keys: Keys) -> str | None:
    # TRAIN first: that is where the official model takes its class names and thing flags from.
    names = keys.names("DATASETS.TRAIN", ()) or keys.names("DATASETS.TEST", ())
    return names[0] if names else None
