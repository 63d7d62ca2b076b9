"""A network that segments by colour: blue is sky, red is a car, dark is road. Small, exact, and a file like others."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from proscale_deploy.core.manifest import METADATA_KEY, Conversion, Manifest
from proscale_deploy.core.operator import DOMAIN, OP_TYPE, VERSION, gather_function
from proscale_deploy.core.types import InputSpec, RawOutput, Thresholds
from support.results import CLASSES

HEIGHT, WIDTH = 64, 96
MANIFEST = Manifest(
    architecture="Colours, no backbone",
    input=InputSpec(HEIGHT, WIDTH, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "RGB", HEIGHT, WIDTH),
    classes=CLASSES,
    thresholds=Thresholds(),
    queries=4,
    precision="fp32",
    config_sha256="c" * 64,
    weights_sha256="d" * 64,
    version="0.1.0",
)
# Queries: sky, road, car, nothing. Classes: road, sky, car, no object.
CLASS_LOGITS = np.array([[0, 9, 0, 0], [9, 0, 0, 0], [0, 0, 9, 0], [0, 0, 0, 9]], np.float32)
RGB_WEIGHTS = np.array([[0, 0, 0.2], [-0.2, 0, -0.1], [0.2, 0, 0], [0, 0, 0]], np.float32)
BIAS = np.array([-25, 20, -25, 5], np.float32)


def picture(height: int = 120, width: int = 180, car: int = 40) -> NDArray[np.uint8]:
    """(H, W, 3) BGR: sky over road, a car of a third of the height that begins at column ``car``."""
    image = np.full((height, width, 3), 10, np.uint8)
    image[: height // 2] = (250, 10, 10)
    image[height // 2 : height * 5 // 6, car : car + height // 3] = (10, 10, 250)
    return image


def write_color_model(path: Path, manifest: Manifest | None = MANIFEST) -> Path:
    """The network as ONNX: average over 4x4 pixels, one 1x1 convolution."""
    constants = {
        "weights": RGB_WEIGHTS[:, :, None, None],
        "bias": BIAS,
        "classes": CLASS_LOGITS[None],
        "from": np.array([0]),
        "to": np.array([1]),
        "shape": np.array(CLASS_LOGITS.shape),
    }
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["image"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Conv", ["pooled", "weights", "bias"], ["mask_logits"]),
            helper.make_node("Shape", ["image"], ["size"]),
            helper.make_node("Slice", ["size", "from", "to"], ["batch"]),
            helper.make_node("Concat", ["batch", "shape"], ["expanded"], axis=0),
            helper.make_node("Expand", ["classes", "expanded"], ["class_logits"]),
        ],
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, HEIGHT, WIDTH])],
        [
            helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, ["batch", *CLASS_LOGITS.shape]),
            helper.make_tensor_value_info("mask_logits", TensorProto.FLOAT, ["batch", 4, HEIGHT // 4, WIDTH // 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if manifest is not None:
        helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_half_model(path: Path) -> Path:
    """The same in FP32, with an input and outputs of FP16, as ``export --io fp16`` has them."""
    manifest = dataclasses.replace(MANIFEST, conversion=Conversion("fp16", (("head", "fp32"),)))
    model = onnx.load(write_color_model(path, manifest))
    for node in model.graph.node:
        node.input[:] = ["x" if name == "image" else name for name in node.input]
        node.output[:] = [f"{name}_32" if name.endswith("_logits") else name for name in node.output]
    model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT))
    for name in ("class_logits", "mask_logits"):
        model.graph.node.append(helper.make_node("Cast", [f"{name}_32"], [name], to=TensorProto.FLOAT16))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_attending_model(path: Path) -> Path:
    """The same, with deformable attention over constants, whose mean is added to the masks."""
    model = onnx.load(write_color_model(path))
    generator = np.random.default_rng(0)
    for name, shape in {"value": (1, 6, 8), "sampling": (1, 6, 6)}.items():
        model.graph.initializer.append(numpy_helper.from_array(generator.standard_normal(shape, np.float32), name))
    for node in model.graph.node:
        node.output[:] = ["masks" if name == "mask_logits" else name for name in node.output]
    model.graph.node.extend(
        [
            helper.make_node(
                OP_TYPE, ["value", "sampling"], ["attended"], domain=DOMAIN, heads=1, points=2, levels=[2, 3]
            ),
            helper.make_node("ReduceMean", ["attended"], ["mean"], keepdims=0),
            helper.make_node("Add", ["masks", "mean"], ["mask_logits"]),
        ]
    )
    model.functions.append(gather_function())
    model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    onnx.save(model, path)
    return path


class ColorSession:
    """The same network in numpy, for tests that need no engine."""

    name = "numpy"
    manifest = MANIFEST

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.closed = False

    def run(self, images: NDArray[np.float32]) -> list[RawOutput]:
        self.batches.append(len(images))
        pooled = images.reshape(len(images), 3, HEIGHT // 4, 4, WIDTH // 4, 4).mean(axis=(3, 5))
        masks = np.einsum("qc,bchw->bqhw", RGB_WEIGHTS, pooled) + BIAS[:, None, None]
        return [RawOutput(CLASS_LOGITS, np.ascontiguousarray(mask, np.float32)) for mask in masks]

    def close(self) -> None:
        self.closed = True
