"""Engines behind one interface: a model file is opened once, then runs batches."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.grid_sample import swap_in_grid_sample
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.model_file import check_model_file, read_model
from proscale_deploy.core.operator import drop_bodies
from proscale_deploy.core.plugin_library import find_host, problem
from proscale_deploy.core.types import RawOutput
from proscale_deploy.runtime.batch import INPUT, OUTPUTS, check_images, check_output_shapes, raw_outputs
from proscale_deploy.runtime.gpu.engine_session import TensorRTSession

__all__ = ["OnnxRuntimeSession", "Session", "TensorRTSession", "open_session"]


class Session(Protocol):
    """A network ready to run. One session serves one thread."""

    @property
    def name(self) -> str:
        """The engine, for people: "ONNX Runtime CPU"."""

    @property
    def manifest(self) -> Manifest:
        """What the model file says about itself."""

    def run(self, images: NDArray[np.float32]) -> list[RawOutput]:
        """``images`` (B, 3, H, W) float32, normalised and padded to the manifest's input size -> B outputs.

        Raises:
            InputError: the images are of another shape or type, or the engine fails on them.
            DeviceError: the GPU fails.
        """

    def close(self) -> None:
        """Free the engine; calling twice does no harm."""

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_session(path: Path) -> Session:
    """Open a model file with the engine that runs its kind.

    Raises:
        InputError: the file is missing, damaged, or not written by proscale-deploy.
        MissingDependency: the package that runs this kind of file is not installed.
        EngineMismatch, PluginError, DeviceError: an engine cannot run here; see :class:`TensorRTSession`.
    """
    check_model_file(path)
    return TensorRTSession(path) if path.suffix.lower() == ".engine" else OnnxRuntimeSession(path)


class OnnxRuntimeSession:
    """An exported .onnx file in ONNX Runtime, on the CPU.

    Deformable attention runs in the compiled host library where there is one that fits (``proscale-deploy plugin
    build``), else as GridSample.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise MissingDependency("onnxruntime", "cpu", f"running {path.name} on the CPU") from error

        model, self.manifest = read_model(path)
        conversion = self.manifest.conversion
        self._io = np.float16 if conversion and conversion.io == "fp16" else np.float32
        options = onnxruntime.SessionOptions()
        host = find_host()
        self._is_compiled = host is not None and problem(host) is None
        if self._is_compiled:
            options.register_custom_ops_library(str(host))
            drop_bodies(model)
        else:
            swap_in_grid_sample(model)
        serialized = model.SerializeToString()
        del model  # or it would stand beside the engine's own copy of the weights
        options.log_severity_level = 4  # it raises what it would log as an error
        # Idle threads sleep and work is dealt out in small blocks: the cores are shared with decoding, post-processing
        # and other programs. 10 % less time on two busy cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.dynamic_block_base", "4")
        try:
            self._session: Any = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise InputError(
                f"{path}: ONNX Runtime cannot run it ({_first_line(error)}); export the model again"
            ) from error

    @property
    def name(self) -> str:
        """See :attr:`Session.name`."""
        return "ONNX Runtime CPU, compiled operator" if self._is_compiled else "ONNX Runtime CPU"

    def run(self, images: NDArray[np.float32]) -> list[RawOutput]:
        """See :meth:`Session.run`."""
        if self._session is None:
            raise InputError("the session is closed; open the model file again")
        check_images(images, self.manifest)
        try:
            found = self._session.run(list(OUTPUTS), {INPUT: images.astype(self._io, copy=False)})
        except Exception as error:  # as above
            raise InputError(
                f"ONNX Runtime failed on a batch of {len(images)} ({_first_line(error)}); "
                "if memory ran out, use a smaller batch or a model of smaller size"
            ) from error
        classes, masks = (array.astype(np.float32, copy=False) for array in found)
        check_output_shapes(dict(zip(OUTPUTS, (classes.shape, masks.shape), strict=True)), self.manifest, len(images))
        return raw_outputs(classes, masks)

    def close(self) -> None:
        """See :meth:`Session.close`."""
        self._session = None

    def __enter__(self) -> OnnxRuntimeSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
