"""What an exported network costs: nodes, parameters, multiply-accumulates."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import onnx

from proscale_deploy.core.operator import Attributes, is_operator
from proscale_deploy.export.precision import Reduction

__all__ = ["Summary", "count_macs", "macs_by"]

_PARTS: Final = {"/backbone/": "backbone", "/pixel_decoder/": "pixel decoder", "/predictor/": "mask decoder"}
"""Beginning of a node's name -> the part it is of."""


@dataclass(frozen=True)
class Summary:
    """What was written, and what it costs."""

    output: Path
    bytes: int
    """Size of the file."""
    nodes: int
    operator_nodes: int
    """Of the nodes, those of the project's own operator: one per encoder layer."""
    parameters: int
    """Trained numbers of the model; the file holds constants beside them (positions, attention masks)."""
    macs: dict[str, int]
    """Multiply-accumulates for one image, by part."""
    error: float
    """Largest relative L2 error of an output, in ONNX Runtime against PyTorch, before any reduction of precision."""
    seconds: float
    reduction: Reduction | None = None
    """None for FP32."""

    @property
    def gmac(self) -> float:
        """10^9 multiply-accumulates for one image."""
        return sum(self.macs.values()) / 1e9


def count_macs(model: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates of ``model`` for one image, by part of the network.

    Counted are convolutions, matrix products, and 4 for each channel of each sample of the operator (one per corner,
    attention being part of its weight). Norms, activations, additions and resizing are not.
    """
    counts = macs_by(model, _part)
    return {part: count for part in (*_PARTS.values(), "other") if (count := counts.get(part, 0))}


def macs_by(model: onnx.ModelProto, part_of: Callable[[str], str]) -> dict[str, int]:
    """The same by any parts: ``part_of`` gives that of a node's name."""
    graph = _static_shapes(model)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        # Only the batch, now 1, is ever computed from shapes in a way that inference does not follow.
        shapes[value.name] = tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
    counts: Counter[str] = Counter()
    for node in graph.node:
        counts[part_of(node.name)] += _macs(node, shapes)
    return dict(counts)


def _part(name: str) -> str:
    return next((part for start, part in _PARTS.items() if name.startswith(start)), "other")


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if is_operator(node):
        attributes = Attributes.of(node)
        tokens, channels = shapes[node.output[0]][1:]
        return 4 * tokens * channels * attributes.samples // attributes.heads
    if node.op_type == "Conv":
        return prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
    return 0


def _static_shapes(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph of a copy with a batch of 1 and all shapes inferred, without its weights."""
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(model)
    graph = skeleton.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        if prod(tensor.dims) > 64:  # shapes and scales of resizing are smaller, and inference reads them
            tensor.ClearField("raw_data")
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return onnx.shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True).graph
