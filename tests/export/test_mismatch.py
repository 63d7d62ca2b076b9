"""Weights that do not fit: everything in one message, with the YAML key that would explain it."""

from dataclasses import replace

import pytest
import torch

from proscale_deploy.core.spec import ModelSpec
from proscale_deploy.export.mismatch import Shapes, describe_mismatch
from proscale_deploy.export.model import build_model
from support.reference import CASES, state_dict_entries

R50, SWIN, PLAIN = CASES["r50_proscale_3_3_3"], CASES["swint_proscale_3_3_3"], CASES["r50_mask2former"]
BACKBONE, PIXEL, DECODER = R50.backbone, R50.pixel_decoder, R50.decoder
PROSCALE = PIXEL.proscale
assert PROSCALE is not None


def shapes(spec: ModelSpec) -> Shapes:
    with torch.device("meta"):
        entries = build_model(spec).state_dict()
    return {
        name: tuple(tensor.shape)
        for name, tensor in entries.items()
        if not name.endswith(("num_batches_tracked", "relative_position_index"))
    }


def official(case: str) -> Shapes:
    return {
        name: shape
        for name, (shape, dtype) in state_dict_entries(case).items()
        if "int" not in dtype and not name.startswith("criterion.")
    }


@pytest.mark.parametrize("case", CASES)
def test_what_fits(case: str) -> None:
    assert describe_mismatch(official(case), official(case)) is None
    assert describe_mismatch(official(case), shapes(CASES[case])) is None


def backbone(spec: ModelSpec, **changes: object) -> ModelSpec:
    return replace(spec, backbone=replace(spec.backbone, **changes))  # type: ignore[arg-type]


def pixel(spec: ModelSpec, **changes: object) -> ModelSpec:
    return replace(spec, pixel_decoder=replace(spec.pixel_decoder, **changes))  # type: ignore[arg-type]


def proscale(**changes: object) -> ModelSpec:
    return pixel(R50, proscale=replace(PROSCALE, **changes))  # type: ignore[arg-type]


def decoder(**changes: object) -> ModelSpec:
    return replace(R50, decoder=replace(DECODER, **changes))  # type: ignore[arg-type]


CHANGES = {
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES: 133 in the file, 150 in the YAML": (R50, replace(R50, num_classes=150)),
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES: 100 in the file, 200 in the YAML": (R50, decoder(queries=200)),
    "MODEL.MASK_FORMER.HIDDEN_DIM: 256 in the file, 128 in the YAML": (R50, decoder(channels=128)),
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD: 2048 in the file, 1024 in the YAML": (R50, decoder(feedforward=1024)),
    "MODEL.MASK_FORMER.DEC_LAYERS: 10 in the file, 7 in the YAML": (R50, decoder(layers=6)),
    "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ: False in the file, True in the YAML": (
        R50,
        decoder(enforce_input_proj=True),
    ),
    "MODEL.SEM_SEG_HEAD.CONVS_DIM: 256 in the file, 128 in the YAML": (R50, pixel(R50, channels=128)),
    "MODEL.SEM_SEG_HEAD.MASK_DIM: 256 in the file, 64 in the YAML": (R50, pixel(R50, mask_channels=64)),
    "MODEL.SEM_SEG_HEAD.NORM: GN in the file, '' in the YAML": (R50, pixel(R50, norm="")),
    "MODEL.MASK_FORMER.NHEADS: 8 in the file, 4 in the YAML": (R50, pixel(R50, heads=4)),
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS: 6 in the file, 3 in the YAML": (PLAIN, pixel(PLAIN, layers=3)),
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME: PROSCALE in the file, MSDeformAttnPixelDecoder in the YAML": (R50, PLAIN),
    "MODEL.PROSCALE.PROSCALE_NUM_LAYERS: [3, 3, 3] in the file, [1, 1, 1] in the YAML": (
        R50,
        proscale(stage_layers=(1, 1, 1)),
    ),
    "MODEL.PROSCALE.IS_EXCITE_CONV: False in the file, True in the YAML": (R50, proscale(recalibration="conv")),
    "MODEL.PROSCALE.IS_EXCITE_CONV: False in the file, None in the YAML": (R50, proscale(recalibration="none")),
    "MODEL.PROSCALE.MASK_OUTPUT_OPS: maxpool in the file, conv in the YAML": (R50, proscale(mask_op="conv")),
    "MODEL.BACKBONE.NAME: D2SwinTransformer in the file, build_resnet_backbone in the YAML": (SWIN, R50),
    "MODEL.RESNETS.DEPTH: 50 in the file, 101 in the YAML": (R50, backbone(R50, depth=101)),
    "MODEL.RESNETS.STEM_OUT_CHANNELS: 64 in the file, 32 in the YAML": (R50, backbone(R50, stem_channels=32)),
    "MODEL.RESNETS.RES2_OUT_CHANNELS: 256 in the file, 128 in the YAML": (R50, backbone(R50, res2_channels=128)),
    "WIDTH_PER_GROUP: 64 in the file, 8 in the YAML; MODEL.RESNETS.NUM_GROUPS: 1 in the file, 32 in the YAML": (
        R50,
        backbone(R50, width_per_group=8, groups=32),
    ),
    "MODEL.SWIN.EMBED_DIM: 96 in the file, 192 in the YAML": (SWIN, backbone(SWIN, embed_dim=192)),
    "MODEL.SWIN.DEPTHS: [2, 2, 6, 2] in the file, [2, 2, 18, 2] in the": (SWIN, backbone(SWIN, depths=(2, 2, 18, 2))),
    "MODEL.SWIN.NUM_HEADS: [3, 6, 12, 24] in the file, [6, 6, 12, 24] in": (SWIN, backbone(SWIN, heads=(6, 6, 12, 24))),
    "MODEL.SWIN.WINDOW_SIZE: 7 in the file, 12 in the YAML": (SWIN, backbone(SWIN, window=12)),
    "MODEL.SWIN.APE: False in the file, True in the YAML": (SWIN, backbone(SWIN, absolute_positions=True)),
    "MODEL.SWIN.PATCH_NORM: True in the file, False in the YAML": (SWIN, backbone(SWIN, patch_norm=False)),
    "MODEL.SWIN.QKV_BIAS: True in the file, False in the YAML": (SWIN, backbone(SWIN, qkv_bias=False)),
}


@pytest.mark.parametrize("expected", CHANGES)
def test_the_key_that_explains_it(expected: str) -> None:
    in_file, in_yaml = CHANGES[expected]
    text = describe_mismatch(shapes(in_file), shapes(in_yaml))
    assert text is not None
    first = text.splitlines()[0]
    assert expected in first
    # One changed value is one explanation.
    assert first.count(" in the file") == expected.count(" in the file")


def test_the_whole_message() -> None:
    assert describe_mismatch(official("r50_mask2former"), shapes(proscale(stage_layers=(1, 1, 1)))) == "\n".join(
        [
            "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME: MSDeformAttnPixelDecoder in the file, PROSCALE in the YAML",
            "8 entries of another shape: "
            + "; ".join(
                f"sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.{name}, expected {expected}"
                for name, expected in (
                    ("sampling_offsets.weight 192x256", "64x256"),
                    ("sampling_offsets.bias 192", "64"),
                    ("attention_weights.weight 96x256", "32x256"),
                    ("attention_weights.bias 96", "32"),
                )
            )
            + "; 4 more",
            "2 entries missing in the file: sem_seg_head.pixel_decoder.transformer (2)",
            "49 entries not in the model: sem_seg_head.pixel_decoder.transformer (48); "
            "sem_seg_head.pixel_decoder.layer_1 (1)",
        ]
    )


def test_a_file_of_something_else_has_no_explanation() -> None:
    text = describe_mismatch(
        {"sem_seg_head.predictor.other.weight": (3,)}, {"backbone.x.weight": (), "backbone.y": (1,)}
    )
    assert text == (
        "2 entries missing in the file: backbone.x.weight (1); backbone.y (1)\n"
        "1 entry not in the model: sem_seg_head.predictor.other (1)"
    )
