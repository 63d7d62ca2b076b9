"""Where two ONNX files of one model part: their modules compared in the order of the data."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from proscale_deploy.core.errors import InputError
from proscale_deploy.export.emulate import emulate_half
from proscale_deploy.export.ranges import run_network
from proscale_deploy.export.verify import output_error

__all__ = ["DRILL_LIMITS", "ModuleError", "drill", "first_parting"]

_CHUNK: Final = 256 << 20
"""Bytes of tensors compared in one run: intermediate results of a large network do not fit in memory at once."""

DRILL_LIMITS: Final = {"fp32": 1e-4, "fp16": 0.3, "int8": 0.7}
"""L2 error of a tensor from which on two files of that precision part. The largest in sound files of the sample model,
on the worst of 40 streets: 0.22 in FP16, 0.53 in INT8, both in cross-attention, where masks decide; the median over the
streets: 0.012, 0.29."""


@dataclass(frozen=True)
class ModuleError:
    """A tensor that leaves a module, B against A."""

    module: str
    """The module's path in the model: /backbone/res2/res2.0/conv1."""
    node: str
    op_type: str
    shape: tuple[int, ...]
    l2: float
    cosine: float


def drill(
    a: onnx.ModelProto,
    b: onnx.ModelProto,
    image: NDArray[np.float32],
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[ModuleError]:
    """Run both on one picture and compare all that leaves a module, in the order of the data.

    Nodes are found by their names, which are those of the modules and which conversion to FP16 and INT8 keeps. FP16 is
    rounded as on a GPU, see :func:`~proscale_deploy.export.emulate.emulate_half`.

    Args:
        a: the truth.
        b: the other.
        image: (3, H, W) float32, as the networks take it.
        progress: called with the tensors done, and their number.

    Raises:
        InputError: the two have no module in common.
        PrecisionError: ONNX Runtime cannot run one of them.
    """
    pairs = _common_outputs(a, b)
    if not pairs:
        raise InputError("A and B have no node of one name: --drill compares files exported from one model")
    found: list[ModuleError] = []
    done = 0
    rounding = emulate_half(a), emulate_half(b)
    for chunk in _chunks(pairs, a):
        outputs = [
            next(_marked(model, [names[side] for _, *names in chunk], image)) for side, model in enumerate(rounding)
        ]
        for (node, *_), x, y in zip(chunk, *outputs, strict=True):
            if x.shape == y.shape and not _is_attention_mask(x):
                error = output_error(x, y)
                found.append(ModuleError(_module(node), node.name, node.op_type, x.shape, error.l2, error.cosine))
        done += len(chunk)
        progress(done, len(pairs))
    return found


def first_parting(modules: Sequence[ModuleError], limit: float) -> ModuleError | None:
    """The first module whose output is off by more than ``limit``; NaN is."""
    return next((module for module in modules if not module.l2 <= limit), None)


_Pair = tuple[NodeProto, str, str]
"""A node of A, its output there, and in B."""


def _common_outputs(a: onnx.ModelProto, b: onnx.ModelProto) -> list[_Pair]:
    """What leaves the modules of A, as far as B has the nodes too."""
    theirs = {node.name: node for node in b.graph.node if node.name}
    floats = _float_shapes(a)
    users: dict[str, set[str]] = {output.name: {"the model's caller"} for output in a.graph.output}
    for node in a.graph.node:
        for tensor in node.input:
            users.setdefault(tensor, set()).add(_module(node))
    pairs = []
    for node in a.graph.node:
        other, tensor = theirs.get(node.name), node.output[0]
        if other is None or other.op_type != node.op_type or tensor not in floats:
            continue
        if users.get(tensor, set()) - {_module(node)}:
            pairs.append((node, tensor, other.output[0]))
    return pairs


def _module(node: NodeProto) -> str:
    return str(node.name).rpartition("/")[0] or "/"


def _is_attention_mask(tensor: NDArray[np.float32]) -> bool:
    """0 where attention may look, elsewhere one negative number: decisions, which flip by rounding. What becomes of
    them is seen in the next tensor."""
    return bool(((tensor == 0) | (tensor == min(tensor.min(), -1))).all())


def _float_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape for one picture, of all tensors of floats that are no constants."""
    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {}
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            shapes[value.name] = tuple(dim.dim_value or 1 for dim in tensor.shape.dim)
    return shapes


def _chunks(pairs: Iterable[_Pair], a: onnx.ModelProto) -> Iterator[list[_Pair]]:
    shapes, chunk, size = _float_shapes(a), list[_Pair](), 0
    for pair in pairs:
        bytes_ = 4 * prod(shapes[pair[1]])
        if chunk and size + bytes_ > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(pair)
        size += bytes_
    if chunk:
        yield chunk


def _marked(
    model: onnx.ModelProto, tensors: Sequence[str], image: NDArray[np.float32]
) -> Iterator[list[NDArray[np.float32]]]:
    """The named tensors."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    names = [f"drilled_{index}" for index in range(len(tensors))]
    for tensor, name in zip(tensors, names, strict=True):
        probe.graph.node.append(helper.make_node("Cast", [tensor], [name], to=TensorProto.FLOAT))
        probe.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return run_network(probe, names, [image])
