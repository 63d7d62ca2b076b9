"""A small network with one of each that matters to an engine: a convolution, a matrix product, the operator's node."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser

from proscale_deploy.core.manifest import METADATA_KEY
from proscale_deploy.core.operator import DOMAIN, VERSION, gather_function
from support.color_model import MANIFEST

OPERATOR = "/encoder/layers.0/self_attn/ProScaleMSDeformAttn"
CRITICAL = {"/backbone/conv/Conv", "/encoder/layers.0/self_attn/MatMul"}

_NAMES = (
    "/Cast_in",
    "/backbone/conv/Conv",
    "/encoder/Reshape",
    "/encoder/Transpose",
    "/encoder/layers.0/self_attn/MatMul",
    OPERATOR,
    "/Cast_masks",
    "/Cast_classes",
)

_TEXT = f"""
<ir_version: 9, opset_import: ["": 18, "{DOMAIN}": {VERSION}]>
network (float[batch, 3, 16, 24] image) => (float[batch, 16, 2, 3] mask_logits, float[batch, 6, 16] class_logits)
{{
    x = Cast <to = TYPE> (image)
    feature = Conv <strides = [8, 8]> (x, filter)
    flat = Reshape (feature, token_shape)
    value = Transpose <perm = [0, 2, 1]> (flat)
    sampling = MatMul (value, weights)
    attended = {DOMAIN}.ProScaleMSDeformAttn <heads = 2, points = 4, levels = [2, 3]> (value, sampling)
    mask_logits = Cast <to = 1> (feature)
    class_logits = Cast <to = 1> (attended)
}}
"""


def engine_model(dtype: type[np.floating] = np.float32, *, precision: str | None = None) -> onnx.ModelProto:
    """The network in one type; ``precision`` is what its manifest says, by default the truth."""
    half = dtype is np.float16
    model = onnx.parser.parse_model(_TEXT.replace("TYPE", "10" if half else "1"))
    for node, name in zip(model.graph.node, _NAMES, strict=True):
        node.name = name
    rng = np.random.default_rng(0)
    tensors = {
        "filter": rng.normal(size=(16, 3, 8, 8)).astype(dtype),
        "weights": rng.normal(size=(16, 24)).astype(dtype),
        "token_shape": np.array([0, 16, -1]),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in tensors.items())
    model.functions.append(gather_function())
    manifest = dataclasses.replace(MANIFEST, precision=precision or ("fp16" if half else "fp32"))
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def write_engine_model(path: Path, dtype: type[np.floating] = np.float32, *, precision: str | None = None) -> Path:
    onnx.save(engine_model(dtype, precision=precision), path)
    return path
