"""From a torch model to one portable ONNX file that is proved equal to it."""

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from proscale_deploy import __version__
from proscale_deploy.core.errors import ExportError, InputError
from proscale_deploy.core.files import check_output, replacing, using_scratch
from proscale_deploy.core.manifest import METADATA_KEY, Manifest
from proscale_deploy.core.operator import DOMAIN, VERSION, gather_function, is_operator
from proscale_deploy.core.spec import ModelSpec
from proscale_deploy.core.types import ClassInfo, Size
from proscale_deploy.export.config import Config, architecture_name
from proscale_deploy.export.equality import OUTPUTS, Network, check_equal, onnx_network
from proscale_deploy.export.precision import Progress, Recipe, convert, silent
from proscale_deploy.export.simplify import simplify
from proscale_deploy.export.summary import Summary, count_macs

__all__ = ["export_onnx", "make_manifest", "round_up_size"]

OPSET: Final = 18
MAX_BYTES: Final = 2**31 - 1
"""Of a protobuf message, which an ONNX file is."""
MASK_STRIDE: Final = 4

_EXPECTED_WARNINGS: Final = (
    "You are using the legacy TorchScript-based ONNX export",
    "The feature will be removed",
    # Positions, masks and scales are meant to become constants: height and width are fixed.
    r"torch\.(from_numpy|tensor) results are registered as constants",
    "Converting a tensor to a Python boolean",
    "Constant folding - Only steps=1 can be constant folded",  # onnxsim folds it
)


def round_up_size(size: Size, divisibility: int) -> Size:
    """The smallest height and width not below ``size`` that are multiples of ``divisibility``."""
    height, width = (-(-side // divisibility) * divisibility for side in size)
    return height, width


def export_onnx(
    config: Config,
    model: nn.Module,
    classes: Sequence[ClassInfo],
    output: Path,
    *,
    size: Size,
    weights_sha256: str,
    recipe: Callable[[onnx.ModelProto], Recipe] | None = None,
    progress: Progress = silent,
) -> Summary:
    """Write ``model`` as one ONNX file that stands for itself: opset 18 and FP32, or the types of a recipe.

    Input ``image`` float32 (batch, 3, height, width), normalised and padded; outputs ``class_logits`` (batch, Q, K+1)
    and ``mask_logits`` (batch, Q, height/4, width/4), float32. The batch is dynamic, height and width are ``size``.
    Deformable attention is one node per encoder layer (see ``core.operator``) with its function body in the file. The
    file holds its :class:`~proscale_deploy.core.manifest.Manifest`, and replaces ``output`` only when it is complete
    and its FP32 form gives the outputs of ``model``, which is not changed.

    Args:
        config: what ``model`` is and how its inputs are made.
        model: the network of ``config.model`` with its trained weights.
        classes: K of them, in the order of the logits.
        output: the file; its folder exists.
        size: height and width, multiples of the configuration's size divisibility (see :func:`round_up_size`).
        weights_sha256: of the weights file, for the manifest.
        recipe: for the FP32 graph, what precision it shall get (see :func:`~.precision.convert`); None: FP32.
        progress: told of what takes long.

    Raises:
        InputError: the size, the classes or the output path cannot be used, or the file cannot be written.
        ExportError: the network cannot be expressed, or the file would not be equal to it.
        PrecisionError: the recipe cannot be followed.
    """
    started = time.monotonic()
    manifest = make_manifest(config, classes, size, weights_sha256)
    check_output(output)
    model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    _check_bytes(sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()))

    graph = simplify(_trace(model, config.model, size), size)
    macs = count_macs(graph)
    serialized = _signed(graph, manifest)
    error = check_equal(
        onnx_network(serialized),
        _torch_network(model),
        size,
        batch=1,
        what="the ONNX file differs from the PyTorch model",
    )
    reduction = None
    if recipe is not None:
        converted = convert(graph, recipe(graph), progress)
        graph, reduction = converted.model, converted.reduction
        serialized = _signed(graph, replace(manifest, precision=converted.precision, conversion=converted.conversion))
    try:
        with replacing(output) as temporary:
            temporary.write_bytes(serialized)
    except OSError as failure:
        raise InputError(f"cannot write {output}: {failure.strerror}") from failure
    return Summary(
        output=output,
        bytes=len(serialized),
        nodes=len(graph.graph.node),
        operator_nodes=sum(map(is_operator, graph.graph.node)),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=macs,
        error=error,
        reduction=reduction,
        seconds=time.monotonic() - started,
    )


def make_manifest(config: Config, classes: Sequence[ClassInfo], size: Size, weights_sha256: str) -> Manifest:
    """What the FP32 file of a model, or the model itself, says about itself; arguments as of :func:`export_onnx`.

    Raises:
        InputError: there is not one class per logit, or the size cannot be used.
    """
    if len(classes) != config.model.num_classes:
        raise InputError(f"expected {config.model.num_classes} classes, one per logit, found {len(classes)}")
    return Manifest(
        architecture=architecture_name(config.model),
        input=replace(config.input, height=size[0], width=size[1]),
        classes=tuple(classes),
        thresholds=config.thresholds,
        queries=config.model.decoder.queries,
        precision="fp32",
        config_sha256=config.sha256,
        weights_sha256=weights_sha256,
        version=__version__,
    )


def _trace(model: nn.Module, spec: ModelSpec, size: Size) -> onnx.ModelProto:
    # TorchScript's exporter: it names nodes after modules, and precision is decided by these names. The newer one does
    # not, and needs onnxscript.
    with using_scratch(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "traced.onnx"
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            torch.onnx.export(
                model,
                (torch.zeros(1, 3, *size),),
                path,
                input_names=["image"],
                output_names=list(OUTPUTS),
                dynamic_axes={name: {0: "batch"} for name in ("image", *OUTPUTS)},
                opset_version=OPSET,
                custom_opsets={DOMAIN: VERSION},
                dynamo=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"PyTorch cannot express the model in ONNX: {error}") from error
        traced = onnx.load_model(path)
    traced.functions.append(gather_function())
    # The exporter knows less of our operator's shapes than its function body says, and of the outputs than we do.
    del traced.graph.value_info[:]
    queries, (height, width) = spec.decoder.queries, size
    shapes = ((queries, spec.num_classes + 1), (queries, height // MASK_STRIDE, width // MASK_STRIDE))
    for output, shape in zip(traced.graph.output, shapes, strict=True):
        tensor = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, ("batch", *shape))
        output.type.CopyFrom(tensor)
    return traced


def _signed(model: onnx.ModelProto, manifest: Manifest) -> bytes:
    """The file: ``model`` with the manifest put into it."""
    model.producer_name = "proscale-deploy"
    model.producer_version = manifest.version
    model.doc_string = manifest.architecture
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    _check_bytes(model.ByteSize())
    serialized: bytes = model.SerializeToString()
    return serialized


def _check_bytes(size: int) -> None:
    if size > MAX_BYTES:
        raise ExportError(
            f"the model takes {size / 1e9:.1f} GB, an ONNX file holds at most {MAX_BYTES / 1e9:.1f} GB; "
            "use a smaller backbone"
        )


def _torch_network(model: nn.Module) -> Network:
    @torch.inference_mode()
    def run(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [output.numpy() for output in model(torch.from_numpy(images))]

    return run
