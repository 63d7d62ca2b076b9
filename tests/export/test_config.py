"""YAML -> specs, against values typed by hand from the official configurations."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from proscale_deploy.core.errors import CheckpointError
from proscale_deploy.core.spec import (
    DecoderSpec,
    ModelSpec,
    PixelDecoderSpec,
    ProScaleSpec,
    ResNetSpec,
    SwinSpec,
)
from proscale_deploy.core.types import InputSpec, Thresholds
from proscale_deploy.export.config import architecture_name, load_config
from support.reference import CASES, REFERENCE

# What the official Cityscapes files say, training keys included.
CITYSCAPES_BASE = """
MODEL:
  BACKBONE: {FREEZE_AT: 0, NAME: "build_resnet_backbone"}
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  RESNETS:
    DEPTH: 50
    STEM_TYPE: "basic"  # not used
    STEM_OUT_CHANNELS: 64
    STRIDE_IN_1X1: False
    OUT_FEATURES: ["res2", "res3", "res4", "res5"]
    NORM: "SyncBN"
    RES5_MULTI_GRID: [1, 2, 4]  # not used
DATASETS:
  TRAIN: ("cityscapes_fine_panoptic_train",)
  TEST: ("cityscapes_fine_panoptic_val",)
INPUT:
  MIN_SIZE_TRAIN: !!python/object/apply:eval ["[int(x * 0.1 * 1024) for x in range(5, 21)]"]
  MIN_SIZE_TEST: 1024
  MAX_SIZE_TEST: 2048
  CROP: {ENABLED: True, SIZE: (512, 1024)}
  SIZE_DIVISIBILITY: -1
  FORMAT: "RGB"
"""
CITYSCAPES_R101 = """
_BASE_: base.yaml
MODEL:
  RESNETS: {DEPTH: 101}
  META_ARCHITECTURE: "MaskFormer"
  SEM_SEG_HEAD:
    NAME: "MaskFormerHead"
    NUM_CLASSES: 19
    CONVS_DIM: 256
    PIXEL_DECODER_NAME: "MSDeformAttnPixelDecoder"
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
    TRANSFORMER_ENC_LAYERS: 6
  MASK_FORMER:
    TRANSFORMER_IN_FEATURE: "multi_scale_pixel_decoder"
    DROPOUT: 0.0
    DEC_LAYERS: 10
    TEST: {PANOPTIC_ON: True, OVERLAP_THRESHOLD: 0.8, OBJECT_MASK_THRESHOLD: 0.7}
"""
# Only what nothing defaults.
SHORTEST: dict[str, Any] = {
    "MODEL": {
        "META_ARCHITECTURE": "MaskFormer",
        "RESNETS": {"OUT_FEATURES": ["res2", "res3", "res4", "res5"]},
        "SEM_SEG_HEAD": {
            "NAME": "MaskFormerHead",
            "NUM_CLASSES": 5,
            "PIXEL_DECODER_NAME": "PROSCALE",
            "IN_FEATURES": ["res2", "res3", "res4", "res5"],
        },
        "MASK_FORMER": {"TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder"},
    }
}


def write(folder: Path, changes: dict[str, Any] | None = None, drop: str | None = None) -> Path:
    """SHORTEST with dotted keys changed or one of them dropped, as a file."""
    tree = yaml.safe_load(yaml.safe_dump(SHORTEST))

    def group(key: str) -> dict[str, Any]:
        node = tree
        for part in key.split(".")[:-1]:
            node = node.setdefault(part, {})
        return node

    for key, value in (changes or {}).items():
        group(key)[key.rsplit(".", 1)[-1]] = value
    if drop:
        del group(drop)[drop.rsplit(".", 1)[-1]]
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("case", CASES)
def test_full_dumps_of_the_reference_models(case: str) -> None:
    config = load_config(REFERENCE / case / "config.yaml")
    assert config.model == CASES[case]
    assert config.input == InputSpec(
        800, 1344, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB", 800, 1333, 32
    )
    assert config.thresholds == Thresholds(0.8, 0.8, 100, ("panoptic", "instance", "semantic"), True)
    assert config.dataset == "coco_2017_train_panoptic"


def test_a_short_official_file_and_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(CITYSCAPES_BASE)
    path = tmp_path / "r101.yaml"
    path.write_text(CITYSCAPES_R101)
    config = load_config(path)
    assert config.model == ModelSpec(
        backbone=ResNetSpec(101, 64, 256, 64, 1, False, 1),
        pixel_decoder=PixelDecoderSpec(256, 256, "GN", 8, 4, 1024, 6, None),
        decoder=DecoderSpec(256, 100, 8, 2048, 9, False, False),
        num_classes=19,
    )
    assert (config.input.height, config.input.width) == (1024, 2048)
    assert config.thresholds == Thresholds(0.7, 0.8, 100, ("panoptic", "semantic"), True)
    assert config.dataset == "cityscapes_fine_panoptic_train"
    assert len(config.sha256) == 64


def test_defaults_are_those_of_the_official_code(tmp_path: Path) -> None:
    config = load_config(write(tmp_path))
    assert config.model == ModelSpec(
        backbone=ResNetSpec(50, 64, 256, 64, 1, True, 1),
        pixel_decoder=PixelDecoderSpec(
            channels=128,
            mask_channels=256,
            norm="GN",
            heads=8,
            points=4,
            feedforward=1024,
            layers=0,
            proscale=ProScaleSpec((1, 1, 1), False, "linear", 1.0, "maxpool"),
        ),
        decoder=DecoderSpec(256, 100, 8, 2048, 5, False, False),
        num_classes=5,
    )
    assert config.input == InputSpec(800, 1344, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR", 800, 1333, 32)
    assert config.thresholds == Thresholds(0.0, 0.0, 100, ("semantic",), False)
    assert config.dataset is None


def test_swin_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, {"MODEL.BACKBONE.NAME": "D2SwinTransformer"}, drop="MODEL.RESNETS.OUT_FEATURES")
    assert load_config(path).model.backbone == SwinSpec(
        96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 224, 4, 4.0, True, None, False, True
    )


def test_a_large_swin_with_every_key(tmp_path: Path) -> None:
    swin = {
        "EMBED_DIM": 192,
        "DEPTHS": [2, 2, 18, 2],
        "NUM_HEADS": [6, 12, 24, 48],
        "WINDOW_SIZE": 12,
        "PRETRAIN_IMG_SIZE": 384,
        "MLP_RATIO": 3.5,
        "QKV_BIAS": False,
        "QK_SCALE": 0.25,
        "APE": True,
        "PATCH_NORM": False,
    }
    changes = {"MODEL.BACKBONE.NAME": "D2SwinTransformer"} | {f"MODEL.SWIN.{key}": value for key, value in swin.items()}
    assert load_config(write(tmp_path, changes)).model.backbone == SwinSpec(
        192, (2, 2, 18, 2), (6, 12, 24, 48), 12, 384, 4, 3.5, False, 0.25, True, False
    )


def test_every_other_width_and_switch(tmp_path: Path) -> None:
    changes = {
        "MODEL.RESNETS.DEPTH": 152,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 32,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 128,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
        "MODEL.RESNETS.NUM_GROUPS": 32,
        "MODEL.RESNETS.RES5_DILATION": 2,
        "MODEL.RESNETS.RES4_DILATION": 2,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 96,
        "MODEL.SEM_SEG_HEAD.MASK_DIM": 50,
        "MODEL.SEM_SEG_HEAD.NORM": "",
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS": 8,
        "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS": 16,
        "MODEL.MASK_FORMER.NHEADS": 6,
        "MODEL.MASK_FORMER.HIDDEN_DIM": 60,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 17,
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 99,
        "MODEL.MASK_FORMER.DEC_LAYERS": 1,
        "MODEL.MASK_FORMER.PRE_NORM": True,
        "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ": True,
        "MODEL.PROSCALE.PROSCALE_NUM_LAYERS": "(2, 0, 4)",
        "MODEL.PROSCALE.RESIDUAL": True,
        "MODEL.PROSCALE.IS_EXCITE_CONV": "None",
        "MODEL.PROSCALE.EXCITE_TEMP": 2,
        "MODEL.PROSCALE.MASK_OUTPUT_OPS": "conv",
    }
    model = load_config(write(tmp_path, changes)).model
    assert model.backbone == ResNetSpec(152, 32, 128, 8, 32, True, 2)
    assert model.pixel_decoder == PixelDecoderSpec(
        96, 50, "", 6, 4, 1024, 0, ProScaleSpec((2, 0, 4), True, "none", 2.0, "conv")
    )
    assert model.decoder == DecoderSpec(60, 17, 6, 99, 0, True, True)


@pytest.mark.parametrize(
    ("shortest", "longest", "divisibility", "expected"),
    [
        (800, 1333, -1, (800, 1344, 32)),
        (800, 1333, 0, (800, 1344, 32)),
        (512, 2048, 32, (512, 2048, 32)),
        (100, 101, 64, (128, 128, 64)),
        # 16 is not enough for the network, 48 not a multiple of what it needs.
        (100, 101, 16, (128, 128, 32)),
        (100, 101, 48, (192, 192, 96)),
        # The longest edge is the limit for both.
        (800, 640, 32, (640, 640, 32)),
        # 0 switches resizing off: frames come as they are, up to the longest edge.
        (0, 640, 32, (640, 640, 32)),
    ],
)
def test_the_default_size(
    tmp_path: Path, shortest: int, longest: int, divisibility: int, expected: tuple[int, int, int]
) -> None:
    changes = {
        "INPUT.MIN_SIZE_TEST": shortest,
        "INPUT.MAX_SIZE_TEST": longest,
        "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": divisibility,
    }
    spec = load_config(write(tmp_path, changes)).input
    assert (spec.height, spec.width, spec.size_divisibility) == expected
    assert (spec.shortest_edge, spec.longest_edge) == (shortest, longest)


@pytest.mark.parametrize(
    ("semantic", "instance", "panoptic", "before", "tasks", "resize_first"),
    [
        (True, False, False, False, ("semantic",), False),
        (True, False, False, True, ("semantic",), True),
        (False, True, False, False, ("instance",), True),
        (True, False, True, False, ("panoptic", "semantic"), True),
        (True, True, True, True, ("panoptic", "instance", "semantic"), True),
    ],
)
def test_tasks(
    tmp_path: Path,
    semantic: bool,
    instance: bool,
    panoptic: bool,
    before: bool,
    tasks: tuple[str, ...],
    resize_first: bool,
) -> None:
    test = "MODEL.MASK_FORMER.TEST"
    changes = {
        f"{test}.SEMANTIC_ON": semantic,
        f"{test}.INSTANCE_ON": instance,
        f"{test}.PANOPTIC_ON": panoptic,
        f"{test}.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": before,
        "TEST.DETECTIONS_PER_IMAGE": 30,
    }
    thresholds = load_config(write(tmp_path, changes)).thresholds
    assert thresholds.tasks == tasks
    assert thresholds.resize_masks_first is resize_first
    assert thresholds.max_instances == 30


def test_the_data_set_is_that_of_training(tmp_path: Path) -> None:
    both = {"DATASETS.TRAIN": "('a', 'b')", "DATASETS.TEST": ["c"]}
    assert load_config(write(tmp_path, both)).dataset == "a"
    assert load_config(write(tmp_path, {"DATASETS.TRAIN": [], "DATASETS.TEST": ["c"]})).dataset == "c"


@pytest.mark.parametrize(
    "key",
    [
        "MODEL.META_ARCHITECTURE",
        "MODEL.RESNETS.OUT_FEATURES",
        "MODEL.SEM_SEG_HEAD.NAME",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES",
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE",
    ],
)
def test_keys_that_must_be_there(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, drop=key)
    with pytest.raises(CheckpointError, match=f"^{path}: missing key {key};"):
        load_config(path)


@pytest.mark.parametrize(
    ("key", "value", "supported"),
    [
        ("MODEL.META_ARCHITECTURE", "VideoMaskFormer", "'MaskFormer'"),
        ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "'MaskFormer'"),
        ("MODEL.SEM_SEG_HEAD.NAME", "PerPixelBaselineHead", "'MaskFormerHead'"),
        ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder", "'PROSCALE' or 'MSDeformAttnPixelDecoder'"),
        ("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder", "'MultiScaleMasked"),
        ("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5", "'multi_scale_pixel_decoder'"),
        ("MODEL.BACKBONE.NAME", "build_resnet_deeplab_backbone", "'build_resnet_backbone' or 'D2SwinTransformer'"),
        ("MODEL.RESNETS.DEPTH", 18, "50 or 101 or 152"),
        ("MODEL.RESNETS.DEPTH", 34, "50 or 101 or 152"),
        ("MODEL.RESNETS.DEPTH", 50.0, "50 or 101 or 152"),
        ("MODEL.RESNETS.NORM", "GN", "'FrozenBN' or 'BN'"),
        ("MODEL.RESNETS.RES5_DILATION", 4, "1 or 2"),
        ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True], "False for every stage"),
        ("MODEL.RESNETS.OUT_FEATURES", ["res4"], "['res2', 'res3', 'res4', 'res5']"),
        ("MODEL.RESNETS.STRIDE_IN_1X1", "yes", "False or True"),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p2", "p3", "p4", "p5"], "['res2', 'res3', 'res4', 'res5']"),
        ("MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES", ["res4", "res5"], "['res3', 'res4', 'res5']"),
        ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 8, "4"),
        ("MODEL.SEM_SEG_HEAD.NORM", "BN", "'GN' or ''"),
        ("MODEL.SEM_SEG_HEAD.CONVS_DIM", 100, "multiples of 32 (group norm) and of MODEL.MASK_FORMER.NHEADS (8)"),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 0, "an integer of at least 1"),
        ("MODEL.MASK_FORMER.HIDDEN_DIM", 254, "multiples of 4"),
        ("MODEL.MASK_FORMER.HIDDEN_DIM", 252, "of MODEL.MASK_FORMER.NHEADS (8)"),
        ("MODEL.MASK_FORMER.DEC_LAYERS", 0, "an integer of at least 1"),
        ("MODEL.MASK_FORMER.SIZE_DIVISIBILITY", -2, "an integer of at least -1"),
        ("MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD", 1.5, "a number from 0 to 1"),
        ("MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False, "at least one of"),
        ("MODEL.PROSCALE.PROSCALE_NUM_LAYERS", [3, 3], "3 integers of at least 0"),
        ("MODEL.PROSCALE.IS_EXCITE_CONV", "conv", "False or True or None"),
        ("MODEL.PROSCALE.MASK_OUTPUT_OPS", "avgpool", "'maxpool' or 'conv'"),
        ("MODEL.PROSCALE.EXCITE_TEMP", "hot", "a number"),
        ("MODEL.PIXEL_MEAN", [103.53], "3 numbers"),
        ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], "3 positive numbers"),
        ("INPUT.FORMAT", "L", "'RGB' or 'BGR'"),
        ("INPUT.MIN_SIZE_TEST", -1, "an integer of at least 0"),
        ("INPUT.MAX_SIZE_TEST", [1333], "an integer of at least 1"),
        ("TEST.DETECTIONS_PER_IMAGE", 0, "an integer of at least 1"),
        ("DATASETS.TRAIN", 5, "a list of names"),
    ],
)
def test_values_that_are_not_supported(tmp_path: Path, key: str, value: Any, supported: str) -> None:
    path = write(tmp_path, {key: value})
    with pytest.raises(CheckpointError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {key} is {value!r}; supported: ")
    assert supported in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "supported"),
    [
        ("NUM_HEADS", [3, 6, 12, 7], "divisors of EMBED_DIM (96) times 1, 2, 4, 8"),
        ("DEPTHS", [2, 2, 6], "4 integers"),
        ("PATCH_SIZE", 8, "4"),
        ("OUT_FEATURES", ["res3", "res4", "res5"], "['res2', 'res3', 'res4', 'res5']"),
        ("QK_SCALE", "small", "a number"),
    ],
)
def test_swin_values_that_are_not_supported(tmp_path: Path, key: str, value: Any, supported: str) -> None:
    path = write(tmp_path, {"MODEL.BACKBONE.NAME": "D2SwinTransformer", f"MODEL.SWIN.{key}": value})
    with pytest.raises(CheckpointError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: MODEL.SWIN.{key} is {value!r}; supported: ")
    assert supported in str(caught.value)


def test_training_keys_are_ignored(tmp_path: Path) -> None:
    plain = load_config(write(tmp_path))
    noisy = load_config(
        write(tmp_path, {"SOLVER.BASE_LR": "high", "MODEL.ROI_HEADS": 3, "MODEL.RESNETS.STEM_TYPE": "x"})
    )
    assert dataclasses.replace(noisy, sha256=plain.sha256) == plain


def test_architecture_names() -> None:
    resnet, swin = CASES["r50_mask2former"], CASES["swint_proscale_3_3_3"]
    assert architecture_name(resnet) == "Mask2Former, ResNet-50"
    assert architecture_name(swin) == "PRO-SCALE 3-3-3, Swin-T"
    assert architecture_name(CASES["r50_proscale_1_2_3_residual_conv"]) == "PRO-SCALE 1-2-3, ResNet-50"

    def name(spec: ModelSpec, **changes: Any) -> str:
        return architecture_name(dataclasses.replace(spec, backbone=dataclasses.replace(spec.backbone, **changes)))

    assert name(resnet, depth=101) == "Mask2Former, ResNet-101"
    assert name(resnet, depth=101, groups=32, width_per_group=8) == "Mask2Former, ResNet-101 (32x8d, 256 channels)"
    assert name(swin, embed_dim=192, depths=(2, 2, 18, 2)) == "PRO-SCALE 3-3-3, Swin-L"
    assert name(swin, embed_dim=48) == "PRO-SCALE 3-3-3, Swin 48 2-2-6-2"
