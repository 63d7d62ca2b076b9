"""A GPU that is not there: stand-ins for TensorRT and pycuda, whose engines are ONNX files, run by ONNX Runtime."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from proscale_deploy.core import gpu, trt
from proscale_deploy.core.gpu import Gpu
from proscale_deploy.core.model_file import read_model
from proscale_deploy.core.sidecar import Sidecar, file_sha256, write_sidecar
from proscale_deploy.runtime.gpu import cuda_graph, engine_session
from support.fake_graphs import FakeGraphs
from support.sidecars import SIDECAR

GPU = Gpu("Orin", "8.7", 8 << 30)
SUPPORT = Path(__file__).parent
MODULES = ("tensorrt", "pycuda", "pycuda.driver")


class FakeGpu:
    """Sets what the stand-ins are and what is to go wrong, and knows what they were told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._calls, self._monkeypatch = folder, folder / "calls", monkeypatch
        for name in ("fake_tensorrt", "fake_pycuda"):
            monkeypatch.syspath_prepend(SUPPORT / name)
        monkeypatch.setenv("FAKE_TENSORRT_CALLS", str(self._calls))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        monkeypatch.setattr(trt, "_loaded", {})
        for module in (gpu, engine_session):
            monkeypatch.setattr(module, "default_gpu", lambda: GPU)
        self.graphs = FakeGraphs(lambda: self.driver)
        monkeypatch.setattr(cuda_graph, "_driver", lambda: self.graphs)
        self.version("10.3.0")

    def version(self, version: str) -> None:
        """Of the stand-in for TensorRT; it is imported anew."""
        self._monkeypatch.setenv("FAKE_TENSORRT", version)
        for name in MODULES:
            self._monkeypatch.delitem(sys.modules, name, raising=False)

    def mood(self, tensorrt: str = "", cuda: str = "") -> None:
        """What goes wrong; before a session is opened, where it is TensorRT."""
        self._monkeypatch.setenv("FAKE_TENSORRT_MOOD", tensorrt)
        self._monkeypatch.setenv("FAKE_CUDA_MOOD", cuda)

    def is_rtx(self) -> None:
        """TensorRT's stand-in plays TensorRT-RTX from now on."""
        self._monkeypatch.syspath_prepend(SUPPORT / "fake_tensorrt_rtx")
        self._monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # the real one, if any, comes back at the end
        del sys.modules["tensorrt_rtx"]
        importlib.import_module("tensorrt_rtx")

    def calls(self, name: str) -> list[list[Any]]:
        calls = [json.loads(line) for line in self._calls.read_text().splitlines()] if self._calls.exists() else []
        return [arguments for called, *arguments in calls if called == name]

    @property
    def driver(self) -> Any:
        return importlib.import_module("pycuda.driver")

    def engine(self, model: Path, batch: tuple[int, int, int] = (1, 2, 4), **facts: Any) -> Path:
        """An engine of a model, as ``build`` leaves it, with ``facts`` in its sidecar."""
        graph, manifest = read_model(model)
        shape = [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim][1:]
        importlib.import_module("tensorrt").set_profile(graph, [(count, *shape) for count in batch])
        engine = model.with_suffix(".engine")
        onnx.save(graph, engine)
        version = str(importlib.import_module("tensorrt").__version__)
        own = {"backend_version": version, "plugin": None, "manifest": manifest, "batch": batch}
        sidecar: Sidecar = dataclasses.replace(SIDECAR, engine_sha256=file_sha256(engine), **(own | facts))
        write_sidecar(engine, sidecar)
        return engine
