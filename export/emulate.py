"""FP16 as a GPU computes it, on a CPU that has none."""

from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

__all__ = ["emulate_half"]

_EXACT: Final = frozenset(
    {"Concat", "Gather", "Identity", "MaxPool", "Pad", "ReduceMax", "Relu", "Reshape", "Slice", "Split", "Squeeze"}
    | {"DequantizeLinear", "Transpose", "Unsqueeze", "Where"}
)
"""Give numbers that they take (of DequantizeLinear the product of an FP16 and at most 8 bits is near enough)."""

_SPLITTER: Final = 2.0**13 + 1
"""FP32 has 13 bits of significand more than FP16."""


def emulate_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """An FP32 copy of a model with FP16 types in which every result is rounded to FP16's significand.

    ONNX Runtime computes most FP16 operators in FP32 on a CPU and drops the casts between them, so that nothing is
    rounded but constants. Here each result r becomes (r c) - (r c - r) with c = 2^13 + 1 (Dekker 1971, splitting a
    number), which rounds to nearest. Sums inside an operator stay FP32, as on tensor cores. FP16's smaller range is not
    emulated.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    half = {value.name: value for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes: list[NodeProto] = []
    # Shapes stay known: ONNX Runtime takes four times as long to open a file in which it has to find them.
    shapes = list(inferred.value_info)
    for node in model.graph.node:
        copy = NodeProto()
        copy.CopyFrom(node)
        nodes.append(copy)
        if copy.op_type == "Cast" and copy.output[0] in half:
            copy.attribute[0].i = TensorProto.FLOAT
        if node.op_type in _EXACT:
            continue
        for index, name in enumerate(node.output):
            if name in half:
                raw, scaled, rest = steps = [f"{name}_{step}" for step in ("unrounded", "scaled", "rest")]
                copy.output[index] = raw
                nodes.append(helper.make_node("Mul", [raw, "splitter"], [scaled]))
                nodes.append(helper.make_node("Sub", [scaled, raw], [rest]))
                nodes.append(helper.make_node("Sub", [scaled, rest], [name]))
                shapes.extend(ValueInfoProto(name=step, type=half[name].type) for step in steps)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.value_info.extend(shapes)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            array = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    graph.initializer.append(numpy_helper.from_array(np.array(_SPLITTER, np.float32), "splitter"))
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result
