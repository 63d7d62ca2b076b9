"""Layers are read from all three forms, and types that are not those of the file are told."""

import json
from typing import Any

import pytest

from proscale_deploy.core.errors import BuildError
from proscale_deploy.export.engine_layers import (
    Layer,
    check_precision,
    count_critical,
    count_layers,
    kept_types,
    layers_of_inspector,
    layers_of_log,
)

# Two layers as TensorRT 8.6 to 10 writes them (trt-engine-explorer's examples), one with the metadata of later ones.
INSPECTED_10 = [
    {
        "Name": "Conv_0 + Relu_1",
        "LayerType": "CaskConvolution",
        "Inputs": [
            {"Name": "x", "Location": "Device", "Format/Datatype": "Channel major FP16 format where channel % 4"}
        ],
        "Outputs": [{"Name": "y", "Location": "Device", "Format/Datatype": "Row major linear FP32"}],
        "Weights": {"Type": "Half", "Count": 9408},
    },
    {
        "Name": "conv1.weight + QuantizeLinear_7 + Conv_9",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Format/Datatype": "Four wide channel vectorized row major Int8 format"}],
        "Outputs": [],
        "Metadata": "[ONNX Layer: /a/Conv]\x1f[ONNX Layer: /a/Relu | alpha: 1 | beta]",
    },
]
INSPECTED_11 = [{"Name": "m", "LayerType": "gemm", "Inputs": [{"Datatype": "Half", "Format": "(Linear)"}]}]

# As TensorRT-RTX 1.7 wrote it, shortened.
LOG = """Layers:
Name: __mye1_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, \
Metadata:
Name: /stem/Conv_myl0_2, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,3,192,320], Strides: [1], \
StrideOrder: [3,0,2,1], Datatype: Half, Format: (NHWC) Channel major format }], Constants: [ { Name: w, Dimensions: \
[32,3,7,7], Datatype: Float, Format: (NHWC) Channel major format }], Outputs: [ { Name: y, Datatype: Float, Format: \
(Linear) Row major linear format }], TacticName: __myelin_CASK_STUB, StreamId: 0, \
Metadata: [ONNX Layer: /stem/Conv]\x1f[ONNX Layer: /stem/Relu]
Name: __myl_Add_myl0_3, LayerType: kgen, Inputs: [ { Name: y, Dimensions: [-1,64], Datatype: Int32, Format: (Linear) \
Row major linear format }], Constants: [], Outputs: [], TacticName: , StreamId: 1, Metadata: [ONNX Layer: /stem/Conv]
Name: _gemm_mha_v2_myl0_4, LayerType: kgen, Inputs: [ { Name: q, Dimensions: [-1,8,100,32], Datatype: Half, Format: \
(Linear) Row major linear format }], Constants: [], Outputs: [], TacticName: _gemm_mha_v2, StreamId: 0, \
Metadata: [ONNX Layer: /attn/MatMul]\x1f[ONNX Layer: /attn/Softmax]\x1f[ONNX Layer: /attn/MatMul_1]

I/O Tensors:
 Name: image, IOMode: Input, DataType: Float, Dimensions: [-1,3,192,320], Location: Device
"""


def test_inspector_of_tensorrt_10() -> None:
    layers = layers_of_inspector(json.dumps({"Layers": INSPECTED_10, "Bindings": ["x"]}))
    assert [(layer.type, layer.nodes) for layer in layers] == [
        ("FP16", ("Conv_0", "Relu_1")),
        ("INT8", ("/a/Conv", "/a/Relu")),
    ]


def test_inspector_of_tensorrt_11() -> None:
    assert layers_of_inspector(json.dumps({"Layers": INSPECTED_11})) == [Layer("m", "gemm", "FP16", ("m",))]


@pytest.mark.parametrize("text", ["", "[]", '{"Layers": ["a name only"]}', '{"Layers": [{}]}'])
def test_inspector_of_another_verbosity(text: str) -> None:
    with pytest.raises(BuildError, match="the engine inspector's answer is not understood"):
        layers_of_inspector(text)


def test_log() -> None:
    layers = layers_of_log(LOG)
    assert [(layer.kind, layer.type) for layer in layers] == [
        ("shape_call", None),
        ("correlation", "FP16"),
        ("kgen", "INT32"),
        ("kgen", "FP16"),
    ]
    assert layers[1].nodes == ("/stem/Conv", "/stem/Relu")
    assert count_layers(layers) == {"FP16": 2, "INT32": 1}
    # What only brings the image into shape for the convolution is not counted as one; a whole attention is.
    assert count_critical(layers, {"/stem/Conv": "FP16", "/attn/MatMul": "FP16"}) == {"FP16": 2}


def engine(**types: str) -> list[Layer]:
    return [Layer(f"{node}_myl0_1", "gemm", type_, (node, f"{node}/Add")) for node, type_ in types.items()]


def critical(count: int, type_: str, start: int = 0) -> dict[str, str]:
    return {f"n{index}": type_ for index in range(start, start + count)}


@pytest.mark.parametrize(
    ("built", "in_file", "precision"),
    [
        (engine(**critical(4, "FP32")), critical(4, "FP32"), "fp32"),
        (engine(**critical(4, "FP16")), critical(4, "FP16"), "fp16"),
        (engine(**critical(18, "FP16"), **critical(2, "FP32", 18)), critical(20, "FP16"), "fp16"),
        (engine(**critical(4, "FP16"), **critical(4, "FP32", 4)), critical(4, "FP16") | critical(4, "FP32", 4), "fp16"),
        (engine(**critical(2, "INT8"), **critical(2, "FP16", 2)), critical(4, "INT8"), "int8"),
    ],
)
def test_as_in_the_file(built: list[Layer], in_file: dict[str, str], precision: str) -> None:
    check_precision(built, in_file, precision, "advice")


@pytest.mark.parametrize(
    ("built", "in_file", "precision", "message"),
    [
        (
            engine(**critical(4, "FP32")),
            critical(4, "FP16"),
            "fp16",
            "4 of 4 convolutions and matrix products that are FP16 in the file were built in FP32, the first .* n0",
        ),
        (
            engine(**critical(17, "FP16"), **critical(3, "FP32", 17)),
            critical(20, "FP16"),
            "fp16",
            "3 of 20 .*first.* n17",
        ),
        (
            engine(**critical(1, "INT8"), **critical(3, "FP16", 1)),
            critical(4, "INT8"),
            "int8",
            "3 of 4 .* built in FP16, .* at least 50 % shall be: advice",
        ),
        (engine(**critical(4, "FP32")), critical(4, "FP32"), "fp16", "calls itself fp16, but none of its 4 .* is FP16"),
        (engine(n0="FP16", other="FP16"), critical(4, "FP16"), "fp16", "tell of only 1 of 4 convolutions"),
    ],
)
def test_not_as_in_the_file(built: list[Layer], in_file: dict[str, str], precision: str, message: Any) -> None:
    with pytest.raises(BuildError, match=message):
        check_precision(built, in_file, precision, "advice")


def test_what_was_kept() -> None:
    built = engine(**critical(2, "INT8"), **critical(3, "FP16", 2))
    in_file = critical(4, "INT8") | critical(1, "FP16", 4) | critical(1, "FP32", 5) | critical(1, "INT8", 6)
    # Of n5, the only one in FP32, and of n6 the layers do not tell.
    assert kept_types(built, in_file) == {"INT8": (2, 4), "FP16": (1, 1)}
