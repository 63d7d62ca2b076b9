"""Q/DQ pairs where TensorRT wants them (explicit quantization), with ranges from real pictures.

Both inputs of a convolution or matrix product are quantized, its output is not: TensorRT puts the next Q into it.
Activations have one scale per tensor, weights one per output channel and lie in the file as INT8. Where a residual
addition follows a quantized convolution, the other summand is quantized too: only then the sum leaves the fused
convolution as INT8. See "Q/DQ Layer-Placement Recommendations" in TensorRT's documentation.
"""

from collections import Counter
from collections.abc import Mapping, Set
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = ["INT8_MAX", "OPSET", "activations", "insert_pairs", "quantizable"]

OPSET: Final = 19
"""The first in which Q and DQ have scales, and so inputs and outputs, of FP16."""

INT8_MAX: Final = 127
"""Symmetric: -127..127."""

_ZERO: Final = "int8_zero"


def quantizable(model: onnx.ModelProto) -> list[str]:
    """Names of the convolutions, and of the matrix products with a matrix of weights."""
    weights = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    return [n.name for n in model.graph.node if n.op_type in ("Conv", "MatMul") and n.input[1] in weights]


def activations(model: onnx.ModelProto, chosen: Set[str]) -> list[str]:
    """The tensors that need a range when the nodes ``chosen`` compute in INT8, in the order of the graph."""
    heavy, residual = chosen & set(quantizable(model)), _residual_inputs(model, chosen)
    names = [
        node.input[0] if node.name in heavy else node.input[residual[node.name]]
        for node in model.graph.node
        if node.name in heavy or node.name in residual
    ]
    return list(dict.fromkeys(names))


def insert_pairs(model: onnx.ModelProto, chosen: Set[str], ranges: Mapping[str, float]) -> onnx.ModelProto:
    """A copy of an FP32 ``model`` in which the nodes ``chosen`` take INT8, in opset 19.

    Args:
        model: nodes in topological order, their names unique; it is left as it is.
        chosen: names; of these nodes those that :func:`quantizable` gives get pairs, and residual additions.
        ranges: for each tensor of :func:`activations` the magnitude that becomes 127.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    heavy, residual = chosen & set(quantizable(model)), _residual_inputs(model, chosen)
    makers = {output: node.name for node in graph.node for output in node.output}
    added: dict[str, TensorProto] = {_ZERO: numpy_helper.from_array(np.zeros((), np.int8), _ZERO)}
    nodes: list[NodeProto] = []
    done: set[str] = set()

    def quantize_activation(name: str) -> str:
        quantized, scale, output = f"{name}_int8", f"{name}_scale", f"{name}_dequantized"
        if name not in done:
            done.add(name)
            added[scale] = numpy_helper.from_array(_scales(np.float32(ranges[name])), scale)
            maker = makers.get(name, name)
            nodes.append(helper.make_node("QuantizeLinear", [name, scale, _ZERO], [quantized], f"{maker}/quantize"))
            nodes.append(
                helper.make_node("DequantizeLinear", [quantized, scale, _ZERO], [output], f"{maker}/dequantize")
            )
        return output

    def quantize_weight(name: str, node: NodeProto) -> str:
        quantized, scale, output = f"{name}_int8", f"{name}_scale", f"{name}_dequantized"
        if name not in done:
            done.add(name)
            array = numpy_helper.to_array(weights[name])
            axis = 0 if node.op_type == "Conv" else array.ndim - 1
            others = tuple(i for i in range(array.ndim) if i != axis)
            scales = _scales(np.abs(array).max(axis=others))
            steps = np.rint(array / np.expand_dims(scales, others)).clip(-INT8_MAX, INT8_MAX).astype(np.int8)
            added[quantized] = numpy_helper.from_array(steps, quantized)
            added[scale] = numpy_helper.from_array(scales, scale)
            zeros = f"int8_zeros_{len(scales)}"
            added[zeros] = numpy_helper.from_array(np.zeros(len(scales), np.int8), zeros)
            inputs, label = [quantized, scale, zeros], f"{node.name}/dequantize_weight"
            nodes.append(helper.make_node("DequantizeLinear", inputs, [output], label, axis=axis))
        return output

    for node in graph.node:
        if node.name in heavy:
            node.input[0] = quantize_activation(node.input[0])
            node.input[1] = quantize_weight(node.input[1], node)
        elif (index := residual.get(node.name)) is not None:
            node.input[index] = quantize_activation(node.input[index])
        nodes.append(node)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(copies)
    graph.initializer.extend([*kept, *added.values()])
    for domain in (*result.opset_import, *(entry for body in result.functions for entry in body.opset_import)):
        if domain.domain == "":
            domain.version = OPSET
    return result


def _scales(largest: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """The steps of an INT8 range, as numbers that FP16 has too: weights are rounded with the very scale of the file."""
    steps = np.asarray(np.where(largest > 0, largest / INT8_MAX, 1.0), np.float16)
    return np.maximum(steps, np.finfo(np.float16).smallest_subnormal).astype(np.float32)


def _residual_inputs(model: onnx.ModelProto, chosen: Set[str]) -> dict[str, int]:
    """Add node -> the position of the summand that does not come from the quantized convolution it is fused with."""
    makers = {output: node for node in model.graph.node for output in node.output}
    readers = Counter(name for node in model.graph.node for name in node.input)
    found = {}
    for node in model.graph.node:
        if node.op_type != "Add" or node.name not in chosen:
            continue
        for index, name in enumerate(node.input):
            maker, other = makers.get(name), node.input[1 - index]
            fused = maker is not None and maker.op_type == "Conv" and maker.name in chosen and readers[name] == 1
            if fused and other in makers:
                found[node.name] = 1 - index
                break
    return found
