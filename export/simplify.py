"""onnxsim, and a check of what it did."""

from collections import Counter
from typing import Final

import onnx
import onnxsim

from proscale_deploy.core.errors import ExportError
from proscale_deploy.core.grid_sample import swap_in_grid_sample
from proscale_deploy.core.operator import OP_TYPE, is_operator
from proscale_deploy.core.types import Size
from proscale_deploy.export.equality import Network, check_equal, onnx_network

__all__ = ["simplify"]

_SKIPPED: Final = (
    "fuse_matmul_add_bias_into_gemm",
    "fuse_matmul_add_bias_into_gemm_batched",
    "fuse_qkv",
    "fuse_transpose_into_gemm",
)
"""onnxsim's passes that replace nodes named after their module by new ones ("Gemm_12"), between reshapes. Runtimes fuse
a MatMul with its bias anyway, and precision is decided, and trouble reported, by these names."""

_FORBIDDEN: Final = frozenset({"BatchNormalization", "GridSample", "If", "Loop", "NonZero", "ScatterND"})
"""Not folded into a convolution, miscompiled by TensorRT, or unknown to TensorRT-RTX."""


def simplify(model: onnx.ModelProto, size: Size) -> onnx.ModelProto:
    """Fold constants and drop what does nothing; ``model`` itself is left as it is.

    Position tables fold with the level embeddings added to them: 52 of 236 MB for ResNet-50 at 800x1344. The model adds
    them before the projections of each layer, so that no layer has a table of its own.

    Args:
        model: input ``image`` (batch, 3, height, width), the outputs of ``equality.OUTPUTS``, any operator nodes.
        size: height and width.

    Raises:
        ExportError: onnxsim fails, the result is no valid model, has lost or changed an operator node, holds a node
            that no target can run, or gives other outputs on a batch of two.
    """
    try:
        simplified: onnx.ModelProto
        simplified, ok = onnxsim.simplify(model, skipped_optimizers=list(_SKIPPED))
    except Exception as error:  # from C++: anything
        raise ExportError(
            f"onnxsim failed ({error}); try another version of it: pip install -c constraints.txt onnxsim"
        ) from error
    if not ok:
        raise ExportError(
            "onnxsim reports that its result differs from the model it was given; try another version of it"
        )
    _check(model, simplified)
    check_equal(_network(simplified), _network(model), size, batch=2, what="onnxsim changed what the network computes")
    return simplified


def _check(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(after, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnxsim made an invalid model: {error}") from error
    if len(after.graph.node) > len(before.graph.node):
        raise ExportError(f"onnxsim made {len(after.graph.node)} nodes of {len(before.graph.node)}, expected fewer")
    operators = [_operators(model) for model in (before, after)]
    if operators[0] != operators[1]:
        kept, made = (sum(counts.values()) for counts in operators)
        raise ExportError(f"onnxsim was given {kept} {OP_TYPE} nodes and left {made}, or changed their attributes")
    if list(before.functions) != list(after.functions):
        raise ExportError(f"onnxsim changed or dropped the function body of {OP_TYPE}")
    forbidden = [node for node in after.graph.node if node.op_type in _FORBIDDEN]
    if forbidden:
        raise ExportError(f"{forbidden[0].op_type} node {forbidden[0].name} is left: not every target can run it")


def _network(model: onnx.ModelProto) -> Network:
    """``model`` with the leaner of two equal bodies: in the other, a batch of two takes many gigabytes."""
    lean = onnx.ModelProto()
    lean.CopyFrom(model)
    swap_in_grid_sample(lean)
    return onnx_network(lean.SerializeToString())


def _operators(model: onnx.ModelProto) -> Counter[bytes]:
    """How many operator nodes there are of each set of attributes."""
    nodes = (node for node in model.graph.node if is_operator(node))
    return Counter(b"".join(sorted(a.SerializeToString() for a in node.attribute)) for node in nodes)
