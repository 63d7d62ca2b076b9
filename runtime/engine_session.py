"""Engines of TensorRT 10.3 to 11 and of TensorRT-RTX, run on the GPU.

The names called were checked against the sources of the Python bindings of 10.3.0, 10.13.3 and 11.1 (tests/support has
them) and against TensorRT-RTX 1.7; up to ``deserialize_cuda_engine``, TensorRT-RTX's were seen to run, without a GPU.
"""

from __future__ import annotations

import functools
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import DeviceError, InputError, PluginError
from proscale_deploy.core.gpu import default_gpu
from proscale_deploy.core.sidecar import Sidecar, read_sidecar
from proscale_deploy.core.trt import TITLES, import_trt, load_plugin
from proscale_deploy.core.types import RawOutput
from proscale_deploy.runtime.batch import INPUT, OUTPUTS, check_images, check_output_shapes, raw_outputs
from proscale_deploy.runtime.cuda import Buffer, Device, Stream

__all__ = ["TensorRTSession"]

_EXTRAS: Final = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""Of this project, to run an engine: the library and pycuda."""


class TensorRTSession:
    """An .engine file with its sidecar, on GPU 0 (of those that CUDA_VISIBLE_DEVICES leaves).

    It takes a batch of any size, as other sessions do, so that whoever calls need not know what it was built for: one
    beyond the engine's largest runs in parts, one below its smallest is filled up with zeros.

    Raises:
        EngineMismatch: the engine was built for another GPU, version or plugin, or is damaged; nothing was loaded yet.
        MissingDependency: TensorRT, or pycuda, is not installed.
        PluginError: the plugin library does not load.
        DeviceError: there is no GPU, its memory is too small, or CUDA or TensorRT fails.
        InputError: the file cannot be read, or the engine is none of a model of this project.
    """

    def __init__(self, path: Path) -> None:
        try:
            sidecar = read_sidecar(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        gpu = default_gpu()
        if gpu is None:
            raise DeviceError(
                f"{path}: no NVIDIA GPU, or no driver, to run it; give the .onnx file that it is from, for the CPU"
            )
        self._trt = import_trt(sidecar.backend, extra=_EXTRAS[sidecar.backend], purpose=f"running {path.name}")
        version = str(self._trt.__version__)
        library = _find_plugin(version) if sidecar.plugin else None
        digest = plugin_library.sha256(library) if library else None
        sidecar.check_fits(path, version=version, compute_capability=gpu.capability, plugin_sha256=digest)
        if library is not None:
            if problem := plugin_library.problem(library):
                raise PluginError(f"{library}: {problem}")
            load_plugin(self._trt, library)

        self.manifest = sidecar.manifest
        self._path, self._title = path, f"{TITLES[sidecar.backend]} {version}"
        self._name = f"{self._title}, {gpu.name}"
        self._log = _log(self._trt)
        self._device = Device(_EXTRAS[sidecar.backend])
        self._context: Any = None
        self._buffers: dict[str, Buffer] = {}
        self._batch = 0
        self._needed = 0  # bytes of GPU memory, as far as known
        with self._device.current(f"opening {path}"), ExitStack() as stack:
            self._open(stack, sidecar)
            self._resources = stack.pop_all()

    @property
    def name(self) -> str:
        """See :attr:`Session.name`."""
        return self._name

    def run(self, images: NDArray[np.float32]) -> list[RawOutput]:
        """See :meth:`Session.run`."""
        if self._context is None:
            raise InputError("the session is closed; open the model file again")
        check_images(images, self.manifest)
        outputs = []
        with self._device.current(f"running a batch of {len(images)} in {self._path}"):
            for start in range(0, len(images), self._largest):
                outputs += self._run_part(images[start : start + self._largest])
        return outputs

    def close(self) -> None:
        """See :meth:`Session.close`."""
        if self._context is not None:
            with self._device.current(f"closing {self._path}"):
                self._resources.close()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, stack: ExitStack, sidecar: Sidecar) -> None:
        """Load the engine, and make all that runs need; ``stack`` frees it, the last first."""
        doing = f"opening {self._path}"
        content = self._path.read_bytes()
        self._needed = len(content)
        try:
            runtime = self._trt.Runtime(self._log)
        except TypeError as error:  # pybind11: "factory function returned nullptr"
            raise self._failure(doing) from error
        if sidecar.version_compatible:
            runtime.engine_host_code_allowed = True  # such an engine brings the part of TensorRT that runs it
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise self._failure(doing)
        self._needed += engine.device_memory_size_v2
        context = engine.create_execution_context()
        if context is None:
            raise self._failure(doing)
        stack.callback(self._forget_context)
        self._context = context  # which keeps the engine, which keeps the runtime, which keeps the log

        types = self._types(engine)
        shapes = engine.get_tensor_profile_shape(INPUT, 0)
        self._smallest, self._largest = shapes[0][0], shapes[2][0]
        self._set_batch(self._largest)
        found = {name: tuple(context.get_tensor_shape(name)) for name in types}
        check_output_shapes(found, self.manifest, self._largest)
        self._needed += sum(int(np.prod(found[name])) * types[name].itemsize for name in types)
        with self._device.current(doing, self._needed):
            self._stream = Stream()
            stack.callback(self._stream.free)
            for name, dtype in types.items():
                self._buffers[name] = Buffer(found[name], dtype)
                stack.callback(self._buffers[name].free)
                self._check(context.set_tensor_address(name, self._buffers[name].address), "taking its buffers")

    def _types(self, engine: Any) -> dict[str, np.dtype[Any]]:
        """Of all inputs and outputs, by name.

        Raises:
            InputError: they are not those of our models.
        """
        known: dict[Any, np.dtype[Any]] = {
            self._trt.DataType.FLOAT: np.dtype(np.float32),
            self._trt.DataType.HALF: np.dtype(np.float16),
        }
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        types = {name: engine.get_tensor_dtype(name) for name in names}
        inputs = [name for name in names if engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT]
        if inputs != [INPUT] or set(names) != {INPUT, *OUTPUTS} or not set(types.values()) <= set(known):
            listed = ", ".join(f"{name} ({dtype})" for name, dtype in types.items())
            raise InputError(
                f"{self._path}: expected the input {INPUT} and the outputs {', '.join(OUTPUTS)} in FP32 or FP16, found "
                f"{listed}; export the model and build the engine again"
            )
        return {name: known[dtype] for name, dtype in types.items()}

    def _run_part(self, images: NDArray[np.float32]) -> list[RawOutput]:
        count = len(images)
        batch = max(count, self._smallest)
        image = self._buffers[INPUT]
        image.host[:count] = images
        image.host[count:batch] = 0
        if batch != self._batch:
            self._set_batch(batch)
        self._stream.copy(image, batch, to_device=True)
        doing = f"running a batch of {batch}"
        self._check(self._context.execute_async_v3(self._stream.handle), doing)
        for name in OUTPUTS:
            self._stream.copy(self._buffers[name], batch, to_device=False)
        self._stream.wait()
        # Copies: the next run overwrites the buffers.
        classes, masks = (self._buffers[name].host[:count].astype(np.float32) for name in OUTPUTS)
        return raw_outputs(classes, masks)

    def _set_batch(self, batch: int) -> None:
        spec = self.manifest.input
        shape = (batch, 3, spec.height, spec.width)
        self._check(self._context.set_input_shape(INPUT, shape), f"taking an input of {shape}")
        self._batch = batch

    def _check(self, succeeded: bool, doing: str) -> None:
        if not succeeded:
            raise self._failure(f"{doing} in {self._path}")

    def _failure(self, doing: str) -> DeviceError:
        """What to raise when TensorRT gave a sign of failure."""
        lines = self._log.take()
        if any("out of memory" in line.lower() or "outofmemory" in line.lower() for line in lines):
            return self._device.out_of_memory(doing, self._needed)
        words = "; ".join(lines) if lines else "no reason given"
        return DeviceError(
            f"{self._title} failed while {doing} ({words}); update the GPU's driver if it is older than the library, "
            "else build the engine again"
        )

    def _forget_context(self) -> None:
        self._context = None


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


def _find_plugin(version: str) -> Path | None:
    try:
        return plugin_library.find_plugin(version)
    except PluginError:
        return None
