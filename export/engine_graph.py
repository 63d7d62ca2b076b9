"""The graph as an engine builder gets it, and the type in which the file wants each convolution and matrix product."""

from collections.abc import Iterable
from typing import Final

import onnx
import onnx.helper
import onnx.inliner
import onnx.shape_inference
from onnx import TensorProto

from proscale_deploy.core.errors import BuildError
from proscale_deploy.core.operator import OP_TYPE, drop_bodies, is_operator

__all__ = ["critical_types", "graph_for_engine"]

_CRITICAL: Final = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul", OP_TYPE})
"""Operators that take the time."""

_SMALL: Final = 1024
"""Bytes: shapes, axes and the like, which inference looks into."""

_TYPES: Final = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
}


def graph_for_engine(model: onnx.ModelProto, *, plugin: bool) -> bytes:
    """Serialise ``model`` for TensorRT's parser: for the plugin, or with the operator's gather body in its place.

    A parser that sees a function takes it and never looks for a plugin (onnx-tensorrt 10.1, importLocalFunctions): with
    the plugin the bodies must go. Without it they are inlined here rather than by the parser, so that their nodes get
    names that say in which module of the model they are.

    Raises:
        BuildError: the graph holds a GridSample.
    """
    graph = _without_tensors(model)
    if plugin:
        drop_bodies(graph)
    else:
        graph = onnx.inliner.inline_local_functions(graph)
        _name_inlined(graph, model)
    _refuse_grid_sample(graph)
    graph.graph.initializer.extend(model.graph.initializer)
    serialized: bytes = graph.SerializeToString()
    return serialized


def _name_inlined(inlined: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Name the nodes of each body after the node it replaces: ".../self_attn/ProScaleMSDeformAttn/value_00__1"."""
    ends = {node.output[0]: node.name for node in model.graph.node if is_operator(node)}
    outside = {output for node in model.graph.node if not is_operator(node) for output in node.output}
    body: list[onnx.NodeProto] = []
    for node in inlined.graph.node:
        if node.output[0] in outside:
            continue
        body.append(node)
        if name := ends.get(node.output[0]):
            for inner in body:
                inner.name = f"{name}/{inner.output[0].rpartition('/')[2]}"
            body.clear()


def _refuse_grid_sample(model: onnx.ModelProto) -> None:
    nodes: Iterable[onnx.NodeProto] = model.graph.node
    for node in [*nodes, *(inner for function in model.functions for inner in function.node)]:
        if node.op_type == "GridSample":
            raise BuildError(
                f"node {node.name or node.output[0]!r} is a GridSample, which TensorRT 10.13 to 11 and TensorRT-RTX "
                "miscompile silently when it is part of deformable attention (NVIDIA/TensorRT issues 4646 and 4813); "
                "export the model again with proscale-deploy export, which writes none"
            )


def critical_types(model: onnx.ModelProto, *, plugin: bool) -> dict[str, str]:
    """Name of each node that takes the time -> the type it is to compute in: FP32, FP16, BF16, INT8.

    INT8 where both inputs come from a DequantizeLinear, else the type of its inputs, which strong typing makes one. The
    operator's nodes are among them if they stay nodes, that is with the plugin.
    """
    bare = _without_tensors(model)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() < _SMALL:
            bare.graph.initializer.append(tensor)
        else:
            bare.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    graph = onnx.shape_inference.infer_shapes(bare).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}

    def type_of(node: onnx.NodeProto) -> str:
        if dequantized.issuperset(node.input[:2]):
            return "INT8"
        return next((_TYPES[types[name]] for name in node.input if types.get(name) in _TYPES), "unknown")

    return {
        node.name: type_of(node)
        for node in model.graph.node
        if node.op_type in _CRITICAL and (plugin or not is_operator(node))
    }


def _without_tensors(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without its weights, of which the inliner and shape inference would make copies."""
    graph = onnx.GraphProto(name=model.graph.name)
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    bare = onnx.ModelProto(ir_version=model.ir_version, graph=graph)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    return bare
