"""What TensorRT's ONNX parser complains of, as a sentence: which node, in which module of the model, and what to do."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from proscale_deploy.core.operator import OP_TYPE

__all__ = ["ParserError", "explain", "read_errors"]

_SHOWN = 3


@dataclass(frozen=True)
class ParserError:
    """One error of the parser."""

    code: str
    """Name of the parser's ErrorCode: "UNSUPPORTED_NODE"."""
    description: str
    node: str
    """Name of the node; empty if the error is of no node."""
    operator: str


def read_errors(parser: Any) -> list[ParserError]:
    """The errors of an OnnxParser."""
    errors = (parser.get_error(index) for index in range(parser.num_errors))
    return [
        ParserError(_code(error.code()), error.desc(), error.node_name(), error.node_operator()) for error in errors
    ]


def explain(errors: Iterable[ParserError]) -> str:
    """One sentence on the first errors, and what to do about the first."""
    found = list(errors)
    if not found:
        return "TensorRT's parser refuses the file without a reason; export the model again"
    places = "; ".join(_place(error) for error in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"TensorRT cannot take the graph: {places}{more}. {_advice(found[0])}"


def _place(error: ParserError) -> str:
    said = " ".join(error.description.split()).rstrip(".")
    if not error.node and not error.operator:
        return f"{said} ({error.code})"
    module = _module(error.node)
    inside = f" in module {module}" if module else ""
    return f"node {error.node} ({error.operator}){inside}: {said} ({error.code})"


def _module(node: str) -> str:
    """ "/encoder/layers.0/linear1/MatMul" -> "encoder.layers.0.linear1"."""
    return node.strip("/").rpartition("/")[0].replace("/", ".") if node.startswith("/") else ""


def _advice(error: ParserError) -> str:
    if error.operator == OP_TYPE:
        return "Build the plugin for this TensorRT (proscale-deploy plugin build), or do without: --no-plugin"
    if error.code == "MODEL_DESERIALIZE_FAILED":
        return "The file is damaged; copy or export it again"
    if "DATATYPE" in error.code or "type" in error.description.lower():
        return "Types must agree at every node of a strongly typed network; export the file again with --precision"
    # A node it does not know is looked for among the plugins: seen from TensorRT-RTX 1.7, with code INVALID_NODE.
    if error.code.startswith("UNSUPPORTED") or "plugin not found" in error.description.lower():
        return "This version has nothing for it: use a newer TensorRT, or export the model again with this version"
    return "Export the model again with this version of proscale-deploy"


def _code(code: Any) -> str:
    # The enum prints itself as text of the C++ side; its name is the same in all versions.
    return str(getattr(code, "name", code))
