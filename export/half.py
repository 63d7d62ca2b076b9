"""Which type every tensor of a graph has: FP16, but for the nodes that stay in FP32."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from proscale_deploy.core.errors import PrecisionError
from proscale_deploy.core.operator import DOMAIN

__all__ = ["FP16_MAX", "to_half"]

FP16_MAX: Final = float(np.finfo(np.float16).max)


def to_half(model: onnx.ModelProto, keep: Callable[[NodeProto], bool], *, half_io: bool = False) -> onnx.ModelProto:
    """A copy of an FP32 ``model`` whose types are in the graph itself, as strong typing wants them.

    A node computes in FP16 unless ``keep`` says otherwise, the operator's nodes and Q/DQ nodes too. A tensor that goes
    from one type to the other passes one Cast, named after the node it comes from. Inputs that an operator has in FP32
    only (the scales of Resize) stay what they are. Names of nodes do not change.

    Args:
        model: FP32, its shapes inferable; int8 tensors between Q and DQ nodes may be in it. It is left as it is.
        keep: whether a node computes in FP32.
        half_io: give the model's inputs and outputs the type of FP16 too; otherwise they stay FP32.

    Raises:
        PrecisionError: a constant of a node that computes in FP16 is beyond its range.
    """
    return _Typing(model, keep).run(half_io)


class _Typing:
    def __init__(self, model: onnx.ModelProto, keep: Callable[[NodeProto], bool]) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        graph = inferred.graph
        values = [*graph.input, *graph.output, *graph.value_info]
        self.model = model
        self.keep = keep
        self.opset = next(entry.version for entry in model.opset_import if entry.domain == "")
        self.float32 = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.constants = _constants(model.graph)
        self.float32 |= self.constants.keys()
        self.types: dict[str, int] = {}
        """What each float tensor has become."""
        self.origin: dict[str, str] = {}
        """The name of the node that makes it."""
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.aliases: dict[tuple[str, int], str] = {}
        self.casts: Counter[str] = Counter()

    def run(self, half_io: bool) -> onnx.ModelProto:
        io = TensorProto.FLOAT16 if half_io else TensorProto.FLOAT
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        graph = result.graph
        for value in graph.input:
            self.types[value.name] = value.type.tensor_type.elem_type = io
        outputs = {value.name for value in graph.output}
        for node in self.model.graph.node:
            if not (node.op_type == "Constant" and node.output[0] in self.constants):
                self._add(node, outputs, io)
        for value in graph.output:
            value.type.tensor_type.elem_type = io
        others = [tensor for tensor in graph.initializer if tensor.name not in self.constants]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend([*others, *self.initializers.values()])
        return result

    def _add(self, source: NodeProto, outputs: set[str], io: int) -> None:
        node = NodeProto()
        node.CopyFrom(source)
        type_ = TensorProto.FLOAT if self.keep(source) else TensorProto.FLOAT16
        for index, (name, fixed) in enumerate(zip(source.input, self._float32_inputs(source), strict=True)):
            if name in self.float32:
                node.input[index] = self._as(name, TensorProto.FLOAT if fixed else type_, source)
        self.nodes.append(node)
        for index, name in enumerate(source.output):
            if name not in self.float32:
                continue
            made = name
            if name in outputs and type_ != io:
                made = node.output[index] = f"{name}_{_SUFFIX[type_]}"
            self.types[made], self.origin[made] = type_, source.name
            if made != name:
                self._cast(made, io, name)
                self.types[name], self.origin[name] = io, source.name

    def _float32_inputs(self, node: NodeProto) -> list[bool]:
        """For each input of a node whether its operator takes nothing but FP32 there."""
        if node.domain == DOMAIN:
            return [False] * len(node.input)
        formal = onnx.defs.get_schema(node.op_type, self.opset, node.domain).inputs
        return [formal[min(i, len(formal) - 1)].type_str == "tensor(float)" for i in range(len(node.input))]

    def _as(self, name: str, type_: int, consumer: NodeProto) -> str:
        """The name under which tensor ``name`` is to be had in a type."""
        if name in self.constants:
            return self._constant(name, type_, consumer)
        if self.types[name] == type_:
            return name
        if (name, type_) not in self.aliases:
            self.aliases[name, type_] = self._cast(name, type_, f"{name}_{_SUFFIX[type_]}")
        return self.aliases[name, type_]

    def _cast(self, name: str, type_: int, output: str) -> str:
        label = f"{self.origin.get(name, name)}/to_{_SUFFIX[type_]}"
        self.casts[label] += 1
        if self.casts[label] > 1:  # of a node with several outputs
            label += f"_{self.casts[label] - 1}"
        self.nodes.append(helper.make_node("Cast", [name], [output], label, to=type_))
        return output

    def _constant(self, name: str, type_: int, consumer: NodeProto) -> str:
        stored = name if type_ == TensorProto.FLOAT else f"{name}_fp16"
        if stored not in self.initializers:
            array = numpy_helper.to_array(self.constants[name])
            if type_ == TensorProto.FLOAT16:
                largest = float(np.abs(array).max(initial=0.0))
                if not largest <= FP16_MAX:  # nor NaN
                    raise PrecisionError(
                        f"constant {name} of {consumer.name} holds {largest:g}, FP16 ends at {FP16_MAX:g}; keep it in "
                        f"FP32: --exclude '{consumer.name}'"
                    )
                array = array.astype(np.float16)
            self.initializers[stored] = numpy_helper.from_array(array, stored)
        return stored


_SUFFIX: Final[dict[int, str]] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


def _constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """FP32 tensors that stand in the file, whether as initializers or as Constant nodes."""
    found = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].t.data_type == TensorProto.FLOAT:
            found[node.output[0]] = node.attribute[0].t
    return found
