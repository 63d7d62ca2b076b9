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

__all__ = ["OnnxRuntimeSession", "Session", "open_session"]


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
    """
    check_model_file(path)
    if path.suffix == ".engine":
        raise InputError(f"{path}: TensorRT engines are not supported by this version; give the .onnx file it is from")
    return OnnxRuntimeSession(path)


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
        spec = self.manifest.input
        expected = (3, spec.height, spec.width)
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != expected or not len(images):
            raise InputError(
                f"expected images (batch, {', '.join(map(str, expected))}) float32, "
                f"found {images.shape} {images.dtype}; make them with proscale_deploy.runtime.preprocess"
            )
        try:
            found = self._session.run(["class_logits", "mask_logits"], {"image": images.astype(self._io, copy=False)})
        except Exception as error:  # as above
            raise InputError(
                f"ONNX Runtime failed on a batch of {len(images)} ({_first_line(error)}); "
                "if memory ran out, use a smaller batch or a model of smaller size"
            ) from error
        classes, masks = (array.astype(np.float32, copy=False) for array in found)
        self._check_shapes(len(images), classes, masks)
        return [RawOutput(*output) for output in zip(classes, masks, strict=True)]

    def close(self) -> None:
        """See :meth:`Session.close`."""
        self._session = None

    def __enter__(self) -> OnnxRuntimeSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_shapes(self, batch: int, classes: NDArray[np.float32], masks: NDArray[np.float32]) -> None:
        spec, queries = self.manifest.input, self.manifest.queries
        expected = (
            (batch, queries, len(self.manifest.classes) + 1),
            (batch, queries, spec.height // 4, spec.width // 4),
        )
        if (classes.shape, masks.shape) != expected:
            raise InputError(
                f"the model gave class_logits {classes.shape} and mask_logits {masks.shape}, but its manifest says "
                f"{expected[0]} and {expected[1]}; export the model again"
            )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
