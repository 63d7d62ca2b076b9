"""What runs a graph of any precision: ONNX Runtime, or an engine where there is a GPU. One test body serves both."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from proscale_deploy.core import plugin_library
from proscale_deploy.core.gpu import default_gpu
from proscale_deploy.core.manifest import METADATA_KEY, Manifest
from proscale_deploy.core.types import RawOutput
from proscale_deploy.export.emulate import emulate_half
from proscale_deploy.export.engine import BuildOptions, build_engine
from proscale_deploy.export.precision import Recipe, convert
from proscale_deploy.runtime.session import Session, open_session
from support.reference import relative_l2

__all__ = ["STATIONS", "Station", "output_errors", "reduced", "station_or_skip"]

Station = Callable[[onnx.ModelProto, Path], Session]
"""A graph with its manifest, a folder for files -> what runs it."""


def reduced(fp32: onnx.ModelProto, recipe: Recipe) -> onnx.ModelProto:
    """What ``export --precision`` makes of an exported graph, manifest included."""
    converted = convert(fp32, recipe)
    (entry,) = [entry for entry in fp32.metadata_props if entry.key == METADATA_KEY]
    manifest = Manifest.from_json(entry.value, "the graph")
    manifest = replace(manifest, precision=converted.precision, conversion=converted.conversion)
    onnx.helper.set_model_props(converted.model, {METADATA_KEY: manifest.to_json()})
    return converted.model


def output_errors(found: RawOutput, expected: RawOutput) -> tuple[float, float]:
    """Relative L2 error of class_logits and of mask_logits."""
    return (
        relative_l2(found.class_logits, expected.class_logits),
        relative_l2(found.mask_logits, expected.mask_logits),
    )


def _missing_for_engines() -> str | None:
    """What has to be here for an engine to be built and run; None: nothing."""
    if default_gpu() is None:
        return "needs a CUDA GPU, and TensorRT or TensorRT-RTX"
    if not any(map(importlib.util.find_spec, ("tensorrt", "tensorrt_rtx"))):
        return "needs TensorRT or TensorRT-RTX: pip install 'proscale-deploy[tensorrt]' or 'proscale-deploy[rtx]'"
    return None


def _onnx_runtime(model: onnx.ModelProto, folder: Path) -> Session:
    """With FP16 rounded as on a GPU, which ONNX Runtime by itself does not do on a CPU."""
    path = folder / "emulated.onnx"
    onnx.save(emulate_half(model), path)
    return open_session(path)


def _engine(model: onnx.ModelProto, folder: Path) -> Session:
    """Built for the GPU at hand: by TensorRT, with the plugin if it is compiled, else by TensorRT-RTX."""
    plugin = bool(plugin_library.plugins())
    has_tensorrt = importlib.util.find_spec("tensorrt") is not None
    options = BuildOptions("tensorrt", plugin=plugin) if has_tensorrt else BuildOptions("tensorrt-rtx")
    path = folder / "model.onnx"
    onnx.save(model, path)
    build_engine(path, path.with_suffix(".engine"), options, lambda doing: None)
    return open_session(path.with_suffix(".engine"))


STATIONS: dict[str, Station] = {"ONNX Runtime": _onnx_runtime, "engine": _engine}


def station_or_skip(name: str) -> Station:
    """A station of ``STATIONS``; skips where what it needs is not here."""
    if name == "engine" and (missing := _missing_for_engines()):
        pytest.skip(missing)
    return STATIONS[name]
