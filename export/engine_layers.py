"""The layers of a built engine and the types they compute in, read from what TensorRT says of it.

Three forms of the same facts:

- TensorRT 10: JSON of the engine inspector, a tensor's ``"Format/Datatype": "Channel major FP16 format where ..."``
  (examples in NVIDIA/TensorRT, tools/experimental/trt-engine-explorer).
- TensorRT 11: the same JSON with ``"Datatype": "Half"`` (NVIDIA/TensorRT v11.1, analyze-data.schema.json).
- the builder's verbose log, one line a layer, with ``Datatype: Half``: seen from TensorRT-RTX 1.7, which writes it on
  machines without a GPU, where the engine cannot be loaded and hence not be inspected.
"""

import collections
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proscale_deploy.core.errors import BuildError

__all__ = [
    "LEAST_SHARE",
    "LOG_HEAD",
    "Layer",
    "check_precision",
    "count",
    "count_critical",
    "count_layers",
    "kept_types",
    "layers_of_inspector",
    "layers_of_log",
]

LOG_HEAD: Final = "Layers:\n"
"""How the log message begins that lists the layers."""

_TYPE: Final = re.compile(r"\b(FP32|Float|FP16|Half|BF16|BFloat16|Int8|FP8|Int32|Int64|Bool)\b", re.I)
_COMMON_NAME: Final = {"float": "FP32", "half": "FP16", "bfloat16": "BF16"}

_GLUE: Final = re.compile(r"kgen|reformat|shuffle|constant|shape|signal|wait|noop|runtime_function|move|cast", re.I)
"""Types of layers that at most bring a tensor into shape for the convolution or product they are listed with..."""

_ATTENTION: Final = re.compile(r"gemm|mha", re.I)
"""...but for generated kernels of these names: whole attentions, "_gemm_mha_v2_myl0_191" (FP16, TensorRT-RTX 1.7)."""

_LINE: Final = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: (?P<inputs>.*?), Constants: .*?"
    r"Outputs: (?P<outputs>.*?), TacticName: .*?(?:Metadata: (?P<metadata>.*))?$"
)

LEAST_SHARE: Final[Mapping[str, float]] = {"FP16": 0.9, "BF16": 0.9, "INT8": 0.5}
"""Of the nodes of a type in the file, those that must be built in it. Strong typing leaves 16-bit nodes no choice; for
INT8 a builder may find some of them faster in 16 bits."""


@dataclass(frozen=True)
class Layer:
    """One layer of an engine."""

    name: str
    kind: str
    """TensorRT's LayerType: "CaskConvolution", "gemm", "correlation", "kgen"."""
    type: str | None
    """What it computes in: the type of its first input; None if it has none."""
    nodes: tuple[str, ...]
    """Names of the ONNX nodes it came from."""


def layers_of_inspector(text: str) -> list[Layer]:
    """From the engine inspector's JSON, of an engine built with detailed profiling verbosity.

    Raises:
        BuildError: it is something else.
    """
    try:
        found = [_of_json(layer) for layer in json.loads(text)["Layers"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(
            f"the engine inspector's answer is not understood ({error!r}): precision cannot be checked"
        ) from error
    return found


def layers_of_log(message: str) -> list[Layer]:
    """From the builder's log message that begins with ``LOG_HEAD``."""
    matches = (_LINE.match(line) for line in message.splitlines())
    return [
        Layer(match["name"], match["kind"], _type_of(match["inputs"]), _nodes(match["name"], match["metadata"] or ""))
        for match in matches
        if match
    ]


def count(types: Iterable[str]) -> dict[str, int]:
    """How often each occurs, the most frequent first."""
    return dict(collections.Counter(types).most_common())


def count_layers(layers: Iterable[Layer]) -> dict[str, int]:
    """Type -> number of layers that compute in it, the most first; those without tensors are left out."""
    return count(layer.type for layer in layers if layer.type)


def count_critical(layers: Iterable[Layer], critical: Mapping[str, str]) -> dict[str, int]:
    """The same of the layers that hold one of the nodes ``critical`` (see ``engine_graph.critical_types``)."""
    return count(layer.type for layer in layers if layer.type and _holds(layer, critical))


def kept_types(layers: Iterable[Layer], critical: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Type in the file -> of its nodes: how many were built in it, and how many the layers tell of."""
    built = _built_types(layers, critical)
    return {
        type_: (sum(type_ in built[node] for node in nodes), len(nodes))
        for type_ in dict.fromkeys(critical.values())
        if (nodes := _told(critical, type_, built))
    }


def check_precision(layers: Sequence[Layer], critical: Mapping[str, str], precision: str, advice: str) -> None:
    """Refuse an engine that does not compute in the types of the file.

    Args:
        layers: of the engine.
        critical: nodes that take the time, with their types in the file.
        precision: what the file says of itself: fp32, fp16 or int8.
        advice: what to do if it was built in other types; ends the message.

    Raises:
        BuildError: too few of the nodes are built in their type, or the file has none of the type it names.
    """
    wanted = precision.upper()
    if wanted in LEAST_SHARE and wanted not in critical.values():
        raise BuildError(
            f"the file calls itself {precision}, but none of its {len(critical)} convolutions and matrix products is "
            f"{wanted}; export it again: proscale-deploy export --precision {precision}"
        )
    built = _built_types(layers, critical)
    for type_, least in LEAST_SHARE.items():
        nodes = _told(critical, type_, built)
        wrong = [node for node in nodes if type_ not in built[node]]
        if len(nodes) - len(wrong) < least * len(nodes):
            found = ", ".join(sorted({found for node in wrong for found in built[node]}))
            raise BuildError(
                f"{len(wrong)} of {len(nodes)} convolutions and matrix products that are {type_} in the file were "
                f"built in {found}, the first of them {wrong[0]}, of which at least {100 * least:.0f} % shall be: "
                f"{advice}"
            )
    reduced = [node for node, in_file in critical.items() if in_file in LEAST_SHARE]
    told = sum(node in built for node in reduced)
    if told < len(reduced) / 2:
        raise BuildError(
            f"the engine's layers tell of only {told} of {len(reduced)} convolutions and matrix products of reduced "
            "precision what became of them: the types it was built in cannot be checked"
        )


def _built_types(layers: Iterable[Layer], critical: Mapping[str, str]) -> dict[str, set[str]]:
    """Node -> the types of the layers that compute it."""
    built: dict[str, set[str]] = collections.defaultdict(set)
    for layer in layers:
        if layer.type and _holds(layer, critical):
            for node in layer.nodes:
                built[node].add(layer.type)
    return built


def _told(critical: Mapping[str, str], type_: str, built: Mapping[str, set[str]]) -> list[str]:
    """The nodes of a type in the file of which the layers tell."""
    return [node for node, in_file in critical.items() if in_file == type_ and node in built]


def _of_json(layer: dict[str, Any]) -> Layer:
    inputs = layer.get("Inputs") or [{}]
    first = str(inputs[0].get("Format/Datatype") or inputs[0].get("Datatype") or "")
    return Layer(layer["Name"], layer["LayerType"], _type_of(first), _nodes(layer["Name"], layer.get("Metadata") or ""))


def _type_of(text: str) -> str | None:
    found = _TYPE.search(text[text.find("Datatype: ") :] if "Datatype: " in text else text)
    return _COMMON_NAME.get(found[1].lower(), found[1].upper()) if found else None


def _nodes(name: str, metadata: str) -> tuple[str, ...]:
    # Where metadata is missing, names of fused layers are the names of their nodes: "Conv_0 + Relu_1".
    # A node's metadata may go on: "[ONNX Layer: name | property | ...]".
    return tuple(re.findall(r"\[ONNX Layer: (.*?)(?: \| [^\]]*)?\]", metadata)) or tuple(name.split(" + "))


def _holds(layer: Layer, critical: Mapping[str, str]) -> bool:
    computes = not _GLUE.search(layer.kind) or _ATTENTION.search(layer.name)
    return bool(computes) and any(node in critical for node in layer.nodes)
