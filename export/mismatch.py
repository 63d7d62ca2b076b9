"""Telling why weights do not fit a model: what differs, and which keys of the YAML would explain it."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

__all__ = ["Shapes", "describe_mismatch"]

Shapes = Mapping[str, tuple[int, ...]]
"""Entries of a state dict by name, with their shapes."""

_SHOWN = 4
"""Lines of detail per group: enough to recognise the place, short enough to read."""

_PIXEL_DECODER = "sem_seg_head.pixel_decoder"
_ENCODER = f"{_PIXEL_DECODER}.transformer.encoder"
_PREDICTOR = "sem_seg_head.predictor"
_QUERIES = f"{_PREDICTOR}.query_feat.weight"
_POINTS = 4
"""Sampled per head and level in every official encoder."""
_RESNET_DEPTHS = {"2-2-2-2": "18", "3-4-6-3": "50", "3-4-23-3": "101", "3-8-36-3": "152"}


def describe_mismatch(found: Shapes, expected: Shapes) -> str | None:
    """What differs between the entries of a file and those of the model its YAML describes; None if nothing does.

    The text has a line of YAML keys whose value the entries contradict, then one per group: mis-shaped, missing and
    unexpected entries, summed up by module.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshaped = [name for name in expected if name in found and found[name] != expected[name]]
    if not (missing or unexpected or misshaped):
        return None
    lines = []
    in_file, in_yaml = _yaml_values(found), _yaml_values(expected)
    contradictions = [key for key in in_file if key in in_yaml and in_file[key] != in_yaml[key]]
    if contradictions:
        lines.append(
            "; ".join(f"{key}: {in_file[key]} in the file, {in_yaml[key]} in the YAML" for key in contradictions)
        )
    if misshaped:
        shown = [f"{name} {_shape(found[name])}, expected {_shape(expected[name])}" for name in misshaped[:_SHOWN]]
        lines.append(_group("of another shape", misshaped, shown, len(misshaped)))
    for title, names in (("missing in the file", missing), ("not in the model", unexpected)):
        if names:
            modules = Counter(_module(name) for name in names)
            shown = [f"{module} ({count})" for module, count in modules.most_common(_SHOWN)]
            lines.append(_group(title, names, shown, len(modules)))
    return "\n".join(lines)


def _group(title: str, names: list[str], shown: list[str], available: int) -> str:
    more = [f"{available - len(shown)} more"] if available > len(shown) else []
    return f"{len(names)} {'entry' if len(names) == 1 else 'entries'} {title}: {'; '.join([*shown, *more])}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _module(name: str) -> str:
    """The place in the model that an entry belongs to, without the index of a layer: "backbone.res4"."""
    return re.sub(r"(\.\d+)+$", "", ".".join(name.split(".")[:3]))


def _yaml_values(shapes: Shapes) -> dict[str, str]:
    """The values of the YAML keys that names and shapes give away; the other keys are left out."""
    values = {**_head_values(shapes), **_encoder_values(shapes)}
    if "backbone.patch_embed.proj.weight" in shapes:
        values |= {"MODEL.BACKBONE.NAME": "D2SwinTransformer", **_swin_values(shapes)}
    elif "backbone.stem.conv1.weight" in shapes:
        values |= {"MODEL.BACKBONE.NAME": "build_resnet_backbone", **_resnet_values(shapes)}
    return {key: str(value) for key, value in values.items() if value is not None}


def _head_values(shapes: Shapes) -> dict[str, Any]:
    rows = _size(shapes, f"{_PREDICTOR}.class_embed.weight")
    channels, hidden = _size(shapes, f"{_PIXEL_DECODER}.mask_features.weight", 1), _size(shapes, _QUERIES, 1)
    # Where the widths differ the projection is always there, and says nothing.
    enforced = f"{_PREDICTOR}.input_proj.0.weight" in shapes if channels == hidden else None
    return {
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": None if rows is None else rows - 1,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": _size(shapes, _QUERIES),
        "MODEL.MASK_FORMER.HIDDEN_DIM": hidden,
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": _size(shapes, f"{_PREDICTOR}.transformer_ffn_layers.0.linear1.weight"),
        "MODEL.MASK_FORMER.DEC_LAYERS": _count(shapes, rf"{_PREDICTOR}.transformer_ffn_layers.(\d+).") + 1,
        "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ": enforced,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": channels,
        "MODEL.SEM_SEG_HEAD.MASK_DIM": _size(shapes, f"{_PIXEL_DECODER}.mask_features.weight"),
        "MODEL.SEM_SEG_HEAD.NORM": "GN" if f"{_PIXEL_DECODER}.adapter_1.norm.weight" in shapes else "''",
    }


def _encoder_values(shapes: Shapes) -> dict[str, Any]:
    layers = _count(shapes, rf"{_ENCODER}.layers.(\d+).")
    # One row per head, point and level that a layer attends to: PRO-SCALE's stages attend to 1, 2 and 3 levels. The
    # last layer attends to all three, unless the last stage is empty; then the rows give nothing away.
    rows = [
        _size(shapes, f"{_ENCODER}.layers.{layer}.self_attn.attention_weights.weight") or 0 for layer in range(layers)
    ]
    per_level = max(rows, default=0) // 3
    stages = [rows.count(level * per_level) for level in (1, 2, 3)]
    readable = sum(stages) == layers
    excite = shapes.get(f"{_ENCODER}.token_excite.ops.weight")
    values: dict[str, Any] = {"MODEL.MASK_FORMER.NHEADS": (per_level // _POINTS or None) if readable else None}
    if excite is None and len(set(rows)) <= 1:
        return values | {
            "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
            "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": layers,
        }
    return values | {
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "PROSCALE",
        "MODEL.PROSCALE.PROSCALE_NUM_LAYERS": stages if readable else None,
        "MODEL.PROSCALE.IS_EXCITE_CONV": "None" if excite is None else len(excite) == 4,
        "MODEL.PROSCALE.MASK_OUTPUT_OPS": "conv" if f"{_PIXEL_DECODER}.layer_1.weight" in shapes else "maxpool",
    }


def _resnet_values(shapes: Shapes) -> dict[str, Any]:
    blocks = "-".join(str(_count(shapes, rf"backbone.res{stage}.(\d+).")) for stage in (2, 3, 4, 5))
    bottleneck, width = (_size(shapes, "backbone.res2.0.conv2.weight", axis) for axis in (0, 1))
    return {
        "MODEL.RESNETS.DEPTH": _RESNET_DEPTHS.get(blocks),
        "MODEL.RESNETS.STEM_OUT_CHANNELS": _size(shapes, "backbone.stem.conv1.weight"),
        "MODEL.RESNETS.RES2_OUT_CHANNELS": _size(shapes, "backbone.res2.0.conv3.weight"),
        "MODEL.RESNETS.WIDTH_PER_GROUP": width,
        "MODEL.RESNETS.NUM_GROUPS": bottleneck // width if bottleneck and width else None,
    }


def _swin_values(shapes: Shapes) -> dict[str, Any]:
    # Rows: every offset (dy, dx) between two tokens of a window; columns: heads.
    tables = [f"backbone.layers.{stage}.blocks.0.attn.relative_position_bias_table" for stage in range(4)]
    offsets = _size(shapes, tables[0])
    return {
        "MODEL.SWIN.EMBED_DIM": _size(shapes, "backbone.patch_embed.proj.weight"),
        "MODEL.SWIN.DEPTHS": [_count(shapes, rf"backbone.layers.{stage}.blocks.(\d+).") for stage in range(4)],
        "MODEL.SWIN.NUM_HEADS": [_size(shapes, table, 1) for table in tables],
        "MODEL.SWIN.WINDOW_SIZE": None if offsets is None else (math.isqrt(offsets) + 1) // 2,
        "MODEL.SWIN.APE": "backbone.absolute_pos_embed" in shapes,
        "MODEL.SWIN.PATCH_NORM": "backbone.patch_embed.norm.weight" in shapes,
        "MODEL.SWIN.QKV_BIAS": "backbone.layers.0.blocks.0.attn.qkv.bias" in shapes,
    }


def _size(shapes: Shapes, name: str, axis: int = 0) -> int | None:
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else None


def _count(shapes: Shapes, pattern: str) -> int:
    """How many different indices the group in ``pattern`` takes: the length of a list of layers."""
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})
