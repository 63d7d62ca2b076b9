"""From an exported FP32 graph to one whose types and Q/DQ pairs say what runs in FP16 and INT8."""

import fnmatch
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from proscale_deploy.core.errors import PrecisionError
from proscale_deploy.core.manifest import Conversion
from proscale_deploy.export.blocks import OTHER, block_of, blocks_of
from proscale_deploy.export.calibration import CalibrationImages
from proscale_deploy.export.emulate import emulate_half
from proscale_deploy.export.equality import OUTPUTS, relative_l2
from proscale_deploy.export.half import FP16_MAX, to_half
from proscale_deploy.export.islands import FP32_ISLANDS, INT8_EXCLUSIONS, matches
from proscale_deploy.export.quantize import activations, insert_pairs, quantizable
from proscale_deploy.export.ranges import calibrate, largest_magnitudes, run_network

__all__ = [
    "Converted",
    "Precision",
    "Progress",
    "Recipe",
    "Reduction",
    "block_levels",
    "convert",
    "counted",
    "int8_nodes",
    "levels_of",
    "silent",
]

Item = TypeVar("Item")

Precision = Literal["fp32", "fp16", "int8"]

_HEADROOM: Final = 0.6
"""Share of FP16's range that a tensor may fill on the pictures looked at; other pictures may go beyond."""

_RANGE_IMAGES: Final = 2
"""Pictures that FP16's range is checked on; magnitudes hardly differ between pictures."""

Progress = Callable[[str, int, int], None]
"""Told of what is done: (what, how much of it is done, of how much)."""


def silent(what: str, done: int, of: int) -> None:
    """Says nothing."""


def counted(items: Collection[Item], what: str, progress: Progress) -> Iterator[Item]:
    """The items; each that is taken is progress."""
    for index, item in enumerate(items):
        progress(what, index + 1, len(items))
        yield item


@dataclass(frozen=True)
class Recipe:
    """What a file of reduced precision shall be."""

    precision: Precision
    """Of every block that ``blocks`` does not name. INT8 stands for FP16 with INT8 where it gains."""
    exclude: tuple[str, ...] = ()
    """Patterns (``*``, ``?``, ``[...]``) of whole node names: kept one step higher, INT8 -> FP16, FP16 -> FP32."""
    half_io: bool = False
    """FP16 for the network's input and outputs too."""
    images: CalibrationImages | None = None
    """What ranges come from; needed for INT8."""
    blocks: Mapping[str, Precision] = field(default_factory=dict)
    """Block (see ``blocks.block_of``) -> its own precision."""
    ranges: Mapping[str, float] | None = None
    """What ``ranges.calibrate`` gave for these pictures before, to spare the time; None: found anew."""


@dataclass(frozen=True)
class Reduction:
    """What became of the nodes of a network, and what it costs."""

    int8_nodes: int
    """Convolutions and matrix products that compute in INT8."""
    fp32_nodes: tuple[str, ...]
    """Kept in FP32 because a tensor of theirs comes near the end of FP16's range."""
    error: float
    """Largest relative L2 error of an output against FP32, on the first picture."""


@dataclass(frozen=True)
class Converted:
    """A graph of reduced precision, and how it was made."""

    model: onnx.ModelProto
    precision: Precision
    conversion: Conversion
    reduction: Reduction


def convert(model: onnx.ModelProto, recipe: Recipe, progress: Progress = silent) -> Converted:
    """Give an FP32 ``model`` as ``to_onnx`` makes it the types of a recipe; ``model`` is left as it is.

    Where a tensor comes near the end of FP16's range on the pictures (without any: on seeded noise), the nodes around
    it stay in FP32.

    Raises:
        PrecisionError: INT8 without calibration pictures, a pattern that fits no node, a constant beyond FP16's range,
            or a result that is no valid model or whose outputs are not finite.
    """
    levels = levels_of(model, recipe)
    if recipe.images is None and "int8" in levels.values():
        raise PrecisionError("INT8 needs real pictures to find its ranges: --calibration DIR, GLOB or VIDEO")
    images = _noise(model) if recipe.images is None else recipe.images.arrays
    wide = _beyond_range(model, levels, counted(images[:_RANGE_IMAGES], "FP16's range, image", progress))
    levels |= dict.fromkeys(wide, "fp32")
    typed, chosen = model, int8_nodes(levels)
    if quantized := chosen.intersection(quantizable(model)):
        ranges = dict(recipe.ranges or {})
        if missing := [name for name in activations(model, chosen) if name not in ranges]:
            ranges |= calibrate(model, missing, counted(images, "INT8's ranges, image", progress))
        typed = insert_pairs(model, chosen, ranges)
    result = to_half(typed, lambda node: levels.get(node.name) == "fp32", half_io=recipe.half_io)
    _check(model, result)
    error = _output_error(model, result, images[:1])
    conversion = Conversion(
        io="fp16" if recipe.half_io else "fp32",
        blocks=tuple(block_levels(model, recipe, quantized).items()),
        excluded=recipe.exclude,
        calibration=recipe.images.facts if recipe.images and quantized else None,
    )
    precision: Precision = "int8" if quantized else "fp16" if {"int8", "fp16"}.intersection(levels.values()) else "fp32"
    return Converted(result, precision, conversion, Reduction(len(quantized), tuple(sorted(wide)), error))


def levels_of(model: onnx.ModelProto, recipe: Recipe) -> dict[str, Precision]:
    """The precision of every node by its name, islands and exclusions heeded.

    Raises:
        PrecisionError: a pattern fits no node.
    """
    names = [node.name for node in model.graph.node]
    excluded = {name for pattern in recipe.exclude for name in _fitting(pattern, names)}
    makers = {output: node.name for node in model.graph.node for output in node.output}
    asked: dict[str, Precision] = {}
    levels: dict[str, Precision] = {}
    for node in model.graph.node:
        name, block = node.name, block_of(node.name)
        level = recipe.blocks.get(block, recipe.precision)
        if block == OTHER:  # shifts of Swin's windows, for instance: they go with what they move
            source = next((makers[tensor] for tensor in node.input if tensor in makers), "")
            level = asked.get(source, recipe.precision)
        asked[name] = level
        if level == "int8" and (name in excluded or matches(INT8_EXCLUSIONS, name)):
            level = "fp16"
        elif level == "fp16" and name in excluded:
            level = "fp32"
        if level == "fp16" and matches(FP32_ISLANDS, name):
            level = "fp32"
        levels[name] = level
    return levels


def int8_nodes(levels: Mapping[str, Precision]) -> frozenset[str]:
    """Names of the nodes that are INT8 where they have such a form."""
    return frozenset(name for name, level in levels.items() if level == "int8")


def block_levels(model: onnx.ModelProto, recipe: Recipe, quantized: Collection[str]) -> dict[str, Precision]:
    """Block -> its precision, FP16 where a recipe says INT8 and none of the nodes ``quantized`` is in the block."""
    lowest = set(map(block_of, quantized))
    asked = {block: recipe.blocks.get(block, recipe.precision) for block in blocks_of(model.graph.node)}
    return {block: "fp16" if of == "int8" and block not in lowest else of for block, of in asked.items()}


def _fitting(pattern: str, names: list[str]) -> list[str]:
    if found := fnmatch.filter(names, pattern):
        return found
    examples = [name for name in names if "Conv" in name or "MatMul" in name]
    raise PrecisionError(
        f"--exclude {pattern!r} fits none of the {len(names)} nodes; names are as {examples[0]} and {examples[-1]}, "
        "and * stands for anything: --exclude '/backbone/*'"
    )


def _noise(model: onnx.ModelProto) -> NDArray[np.float32]:
    """One input of seeded noise (1, 3, height, width), of the spread of normalised pictures."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)


def _beyond_range(
    model: onnx.ModelProto, levels: Mapping[str, Precision], images: Iterable[NDArray[np.float32]]
) -> set[str]:
    """Nodes not in FP32 already that read or write a tensor too large for FP16."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = [*inferred.graph.value_info, *inferred.graph.output]
    tensors = [value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT]
    largest = largest_magnitudes(model, tensors, images)
    wide = {name for name, magnitude in largest.items() if magnitude > _HEADROOM * FP16_MAX}
    return {
        node.name
        for node in model.graph.node
        if levels[node.name] != "fp32" and wide.intersection([*node.input, *node.output])
    }


def _check(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(after, full_check=True)
        onnx.shape_inference.infer_shapes(after, strict_mode=True, check_type=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PrecisionError(f"the types of the converted model do not fit together: {error}") from error
    missing = {node.name for node in before.graph.node if node.op_type != "Constant"} - {
        node.name for node in after.graph.node
    }
    if missing:
        raise PrecisionError(f"{len(missing)} nodes were lost, {min(missing)} among them")


def _output_error(before: onnx.ModelProto, after: onnx.ModelProto, images: NDArray[np.float32]) -> float:
    """Largest relative L2 error of an output."""
    expected, found = (next(run_network(model, OUTPUTS, images)) for model in (before, emulate_half(after)))
    error = float(np.max([relative_l2(*pair) for pair in zip(found, expected, strict=True)]))
    if not np.isfinite(error):
        raise PrecisionError("the converted network gives numbers that are not finite")
    return error
