"""Engines of TensorRT 10.3 to 11 and of TensorRT-RTX, run on the GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import DeviceError, InputError, PluginError
from proscale_deploy.core.gpu import default_gpu
from proscale_deploy.core.sidecar import read_sidecar
from proscale_deploy.core.trt import import_trt, load_plugin
from proscale_deploy.core.types import RawOutput
from proscale_deploy.runtime.batch import INPUT, OUTPUTS, check_images, raw_outputs
from proscale_deploy.runtime.gpu.cuda import Device
from proscale_deploy.runtime.gpu.engine import Engine
from proscale_deploy.runtime.gpu.lane import Lane

__all__ = ["TensorRTSession"]

_EXTRAS: Final = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""Of this project, to run an engine: the library and pycuda."""


class TensorRTSession:
    """An .engine file with its sidecar, on GPU 0 (of those that CUDA_VISIBLE_DEVICES leaves).

    ``run`` takes a batch of any size, as other sessions do, so that whoever calls need not know what it was built for:
    one beyond the engine's largest runs in parts, one below its smallest is filled up with zeros.

    With ``submit`` and ``collect`` two batches may be in flight, each on a lane of its own
    (:class:`~proscale_deploy.runtime.gpu.lane.Lane`), so that the copies of one overlap with the work of the other. The
    second lane is made when it is first needed, because it takes as much memory again.

    Raises:
        EngineMismatch: the engine was built for another GPU, version or plugin, or is damaged; nothing was loaded yet.
        MissingDependency: TensorRT, or pycuda, is not installed.
        PluginError: the plugin library does not load.
        DeviceError: there is no GPU, its memory is too small, or CUDA or TensorRT fails.
        InputError: the file cannot be read, or the engine is none of a model of this project.
    """

    depth = 2

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
        trt = import_trt(sidecar.backend, extra=_EXTRAS[sidecar.backend], purpose=f"running {path.name}")
        version = str(trt.__version__)
        library = _find_plugin(version) if sidecar.plugin else None
        digest = plugin_library.sha256(library) if library else None
        sidecar.check_fits(path, version=version, compute_capability=gpu.capability, plugin_sha256=digest)
        if library is not None:
            if problem := plugin_library.problem(library):
                raise PluginError(f"{library}: {problem}")
            load_plugin(trt, library)

        self.manifest = sidecar.manifest
        self.device = Device(_EXTRAS[sidecar.backend])
        self._path, self._closed = path, False
        self._lanes: list[Lane] = []
        self._idle: list[Lane] = []
        self._pending: deque[tuple[Lane, int]] = deque()
        with self.device.current(f"opening {path}"), ExitStack() as stack:
            self._engine = Engine(trt, path, sidecar, self.device, gpu.name)
            stack.callback(self._engine.free)
            self._resources = stack
            self.give_back(self.take_lane())
            self._resources = stack.pop_all()

    @property
    def name(self) -> str:
        """See :attr:`Session.name`."""
        problem = self._graph_problem
        return f"{self._engine.name}, without CUDA graph ({problem})" if problem else self._engine.name

    @property
    def cuda_graph(self) -> str:
        """What is done with the network's launches, for people."""
        if own := self._engine.own_graphs:
            return own
        if problem := self._graph_problem:
            return f"none ({problem})"
        return "replayed" if any(lane.replays for lane in self._lanes) else "none yet: captured in the second run"

    @property
    def largest_batch(self) -> int:
        """The most images that :meth:`submit` takes."""
        return self._engine.largest

    @property
    def pending(self) -> int:
        """Batches submitted and not collected."""
        return len(self._pending)

    def run(self, images: NDArray[np.float32]) -> list[RawOutput]:
        """See :meth:`Session.run`."""
        self._check_images(images)
        outputs = []
        for start in range(0, len(images), self.largest_batch):
            outputs += self._outputs(*self._queue(images[start : start + self.largest_batch]))
        return outputs

    def submit(self, images: NDArray[np.float32]) -> None:
        """Queue a batch (B, 3, H, W) float32 of at most ``largest_batch``; ``images`` may change afterwards.

        Raises:
            InputError: the images are of another shape, type or number, or ``depth`` batches are pending.
            OutOfMemory: the GPU's memory is too small for a second batch in flight.
            DeviceError: the GPU fails.
        """
        self._check_images(images)
        if len(images) > self.largest_batch:
            raise InputError(f"expected at most {self.largest_batch} images, as the engine takes, found {len(images)}")
        self._pending.append(self._queue(images))

    def collect(self) -> list[RawOutput]:
        """Wait for the outputs of the oldest batch.

        Raises:
            InputError: nothing is pending.
            DeviceError: the GPU fails; the batch is gone.
        """
        if not self._pending:
            raise InputError("no batch is pending: submit one first")
        return self._outputs(*self._pending.popleft())

    def take_lane(self) -> Lane:
        """A lane that nobody uses, within ``device.current``; at most ``depth`` may be out.

        Raises:
            OutOfMemory: the GPU's memory is too small for another one.
        """
        if not self._idle:
            lane = Lane(self._engine, self.device)
            self._resources.callback(lane.free)
            self._lanes.append(lane)
            self._idle.append(lane)
        return self._idle.pop()

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """:meth:`take_lane`, given back if the block fails."""
        lane = self.take_lane()
        try:
            yield lane
        except BaseException:
            self.give_back(lane)
            raise

    def give_back(self, lane: Lane) -> None:
        """Wait for what the lane does, whatever comes of it, and leave it to the next batch."""
        lane.stream.drain()
        self._idle.append(lane)

    def close(self) -> None:
        """See :meth:`Session.close`."""
        if self._closed:
            return
        self._closed = True
        self._pending.clear()
        with self.device.current(f"closing {self._path}"), self._resources:
            self._engine.keep_compiled()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _graph_problem(self) -> str | None:
        return next((lane.graph_problem for lane in self._lanes if lane.graph_problem), None)

    def _queue(self, images: NDArray[np.float32]) -> tuple[Lane, int]:
        count = len(images)
        with self.device.current(self._doing(count)), self.lane() as lane:
            pinned = lane.rows(INPUT, count)
            pinned[:] = images
            lane.stream.upload(lane.buffers[INPUT].address, pinned)
            lane.run(count)
            for name in OUTPUTS:
                lane.download(name, count)
            lane.done.record(lane.stream)
        return lane, count

    def _outputs(self, lane: Lane, count: int) -> list[RawOutput]:
        with self.device.current(self._doing(count)):
            try:
                lane.done.wait()
                # Copies: the next batch overwrites the buffers.
                classes, masks = (lane.rows(name, count).astype(np.float32) for name in OUTPUTS)
            finally:
                self.give_back(lane)
        return raw_outputs(classes, masks)

    def _doing(self, count: int) -> str:
        return f"running a batch of {count} in {self._path}"

    def _check_images(self, images: NDArray[np.float32]) -> None:
        if self._closed:
            raise InputError("the session is closed; open the model file again")
        check_images(images, self.manifest)
        if self.pending == self.depth:
            raise InputError(f"batches pending: {self.pending}, as many as fit; collect one first")


def _find_plugin(version: str) -> Path | None:
    try:
        return plugin_library.find_plugin(version)
    except PluginError:
        return None
