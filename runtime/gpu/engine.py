"""An engine of TensorRT or TensorRT-RTX in memory, of one of our models.

The names called were checked against the sources of the Python bindings of 10.3.0, 10.13.3 and 11.1 (tests/support has
them) and against TensorRT-RTX 1.7; up to ``deserialize_cuda_engine``, TensorRT-RTX's were seen to run, without a GPU.
"""

import functools
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from proscale_deploy.core.errors import DeviceError, InputError
from proscale_deploy.core.sidecar import Sidecar
from proscale_deploy.core.trt import TITLES
from proscale_deploy.runtime.batch import INPUT, OUTPUTS
from proscale_deploy.runtime.gpu.cuda import Device
from proscale_deploy.runtime.gpu.rtx import RtxRuntime

__all__ = ["Engine"]


class Engine:
    """Made, used and freed within :meth:`Device.current`.

    Args:
        trt: the module that runs it.
        path: of the engine, which fits here.
        sidecar: what stands beside it.
        device: where it runs.
        gpu: its name.

    Raises:
        InputError: its inputs and outputs are not those of our models.
        DeviceError: TensorRT fails.
    """

    def __init__(self, trt: Any, path: Path, sidecar: Sidecar, device: Device, gpu: str) -> None:
        self.path, self.manifest = path, sidecar.manifest
        self._trt, self._device, self._log = trt, device, _log(trt)
        self._title = f"{TITLES[sidecar.backend]} {trt.__version__}"
        self.name = f"{self._title}, {gpu}"
        self._engine: Any = None
        content = path.read_bytes()
        self.memory = len(content)
        """Bytes on the GPU, as far as known."""
        doing = f"opening {path}"
        try:
            runtime = trt.Runtime(self._log)
        except TypeError as error:  # pybind11: "factory function returned nullptr"
            raise self.failure(doing) from error
        if sidecar.version_compatible:
            runtime.engine_host_code_allowed = True  # such an engine brings the part of TensorRT that runs it
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise self.failure(doing)
        self._engine = engine  # which keeps the runtime, which keeps the log
        self.types = self._types()
        shapes = engine.get_tensor_profile_shape(INPUT, 0)
        self.smallest, self.largest = int(shapes[0][0]), int(shapes[2][0])
        """Batches."""
        self._rtx = RtxRuntime(trt, engine, sidecar, gpu) if sidecar.backend == "tensorrt-rtx" else None

    @property
    def context_memory(self) -> int:
        """Bytes on the GPU that an execution context takes, as far as known."""
        return int(self._engine.device_memory_size_v2) if self._engine else 0

    @property
    def own_graphs(self) -> str | None:
        """What the library does about CUDA graphs by itself; None: nothing."""
        return self._rtx.graphs if self._rtx else None

    def new_context(self) -> Any:
        """An execution context. All have the engine's one profile: since TensorRT 10 contexts may share it.

        Raises:
            DeviceError: memory ran out, or TensorRT fails.
        """
        context = self._rtx.new_context() if self._rtx else self._engine.create_execution_context()
        if context is None:
            raise self.failure(f"opening {self.path}")
        return context

    def check(self, succeeded: bool, doing: str) -> None:
        """Raise unless a call of TensorRT's succeeded.

        Raises:
            DeviceError: it did not; with what TensorRT logged.
        """
        if not succeeded:
            raise self.failure(f"{doing} in {self.path}")
        self._log.take()  # errors that did no harm are not to explain a later one

    def failure(self, doing: str) -> DeviceError:
        """What to raise when TensorRT gave a sign of failure."""
        lines = self._log.take()
        if any("out of memory" in line.lower() or "outofmemory" in line.lower() for line in lines):
            return self._device.out_of_memory(doing, self.memory + self.context_memory)
        words = "; ".join(lines) if lines else "no reason given"
        return DeviceError(
            f"{self._title} failed while {doing} ({words}); update the GPU's driver if it is older than the library, "
            "else build the engine again"
        )

    def keep_compiled(self) -> None:
        """Keep on disk what was compiled on this machine, for the next opening."""
        if self._rtx:
            self._rtx.keep()

    def free(self) -> None:
        """After its contexts."""
        self._rtx = self._engine = None

    def _types(self) -> dict[str, np.dtype[Any]]:
        """Of all inputs and outputs, by name.

        Raises:
            InputError: they are not those of our models.
        """
        engine, trt = self._engine, self._trt
        known: dict[Any, np.dtype[Any]] = {
            trt.DataType.FLOAT: np.dtype(np.float32),
            trt.DataType.HALF: np.dtype(np.float16),
        }
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        types = {name: engine.get_tensor_dtype(name) for name in names}
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if inputs != [INPUT] or set(names) != {INPUT, *OUTPUTS} or not set(types.values()) <= set(known):
            listed = ", ".join(f"{name} ({dtype})" for name, dtype in types.items())
            raise InputError(
                f"{self.path}: expected the input {INPUT} and the outputs {', '.join(OUTPUTS)} in FP32 or FP16, found "
                f"{listed}; export the model and build the engine again"
            )
        return {name: known[dtype] for name, dtype in types.items()}


@functools.cache
def _log(trt: Any) -> Any:
    """The logger of this process, which keeps the last errors.

    TensorRT keeps to the first logger that it is given, whoever is given others.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=8)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self._errors.append(" ".join(message.split()))

        def take(self) -> list[str]:
            taken = list(self._errors)
            self._errors.clear()
            return taken

    return Log()
