"""What one batch in flight needs on the GPU: an execution context, a stream, the network's tensors, a CUDA graph."""

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import DeviceError
from proscale_deploy.runtime.batch import INPUT, check_output_shapes
from proscale_deploy.runtime.gpu.cuda import Buffer, Device, Event, Stream
from proscale_deploy.runtime.gpu.cuda_graph import CaptureError, Graph
from proscale_deploy.runtime.gpu.engine import Engine

__all__ = ["Lane"]


class Lane:
    """Room for one batch, up to the engine's largest. Made, used and freed within :meth:`Device.current`.

    The network runs once in the usual way; from then on, as long as the size of the batch stays, what it queues is
    replayed as one CUDA graph. TensorRT promises a captured graph only for the shapes that its context has, so another
    size begins anew.

    Raises:
        InputError: the engine's outputs are not those of its manifest.
        DeviceError: the GPU's memory is too small, or TensorRT fails.
    """

    def __init__(self, engine: Engine, device: Device) -> None:
        self._engine = engine
        self.types = engine.types
        self._batch = 0
        self._is_warm = False
        self._graph: Graph | None = None
        self.graph_problem: str | None = None
        """Why the network's work is not replayed as a graph."""
        doing = f"opening {engine.path}"
        with ExitStack() as stack:
            self._context: Any = engine.new_context()
            stack.callback(self._forget_context)
            self._set_batch(engine.largest)
            self._shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in engine.types}
            check_output_shapes(self._shapes, engine.manifest, engine.largest)
            sizes = {name: self.row_size(name) * engine.largest for name in engine.types}
            with device.current(doing, engine.memory + engine.context_memory + sum(sizes.values())):
                self.stream = Stream()
                stack.callback(self.stream.free)
                self.started, self.finished = Event(), Event()
                """Of the network."""
                self.done = Event()
                """For whoever uses the lane."""
                for event in (self.started, self.finished, self.done):
                    stack.callback(event.free)
                self.buffers: dict[str, Buffer] = {}
                for name, size in sizes.items():
                    self.buffers[name] = Buffer(size)
                    stack.callback(self.buffers[name].free)
                    taken = self._context.set_tensor_address(name, self.buffers[name].address)
                    engine.check(taken, "taking its buffers")
            stack.callback(self._drop_graph)
            self._resources = stack.pop_all()

    def row_size(self, name: str) -> int:
        """Bytes of one image's share of a tensor."""
        return int(np.prod(self._shapes[name][1:])) * self.types[name].itemsize

    def address(self, name: str, index: int) -> int:
        """Of one image's share of a tensor, on the device."""
        return self.buffers[name].address + index * self.row_size(name)

    def rows(self, name: str, count: int) -> NDArray[Any]:
        """Pinned memory of the first ``count`` images' share of a tensor."""
        return self.buffers[name].host((count, *self._shapes[name][1:]), self.types[name])

    @property
    def replays(self) -> bool:
        """Whether the network's work is replayed as a graph."""
        return self._graph is not None

    def run(self, count: int) -> None:
        """Queue the network for ``count`` images in the input's buffer, between the events.

        Raises:
            DeviceError: TensorRT fails.
        """
        batch = max(count, self._engine.smallest)
        if batch > count:
            self.stream.clear(self.address(INPUT, count), (batch - count) * self.row_size(INPUT))
        if batch != self._batch:
            self._set_batch(batch)
        self.started.record(self.stream)
        if not self._replay():
            self._execute()
            self._is_warm = True
        self.finished.record(self.stream)

    def download(self, name: str, count: int) -> None:
        """Queue the copy of ``count`` images' share of an output to pinned memory."""
        self.stream.download(self.rows(name, count), self.buffers[name].address)

    def free(self) -> None:
        """Wait for what is queued, and free all."""
        self.stream.drain()
        self._resources.close()

    def _replay(self) -> bool:
        """Launch the graph, once there is or can be one; False: queue the work instead."""
        if self._engine.own_graphs or not self._is_warm or self.graph_problem:
            return False
        try:
            if self._graph is None:
                self._graph = Graph(self.stream.handle, self._execute)
            self._graph.launch(self.stream.handle)
        except (CaptureError, DeviceError) as error:  # the driver refuses, or TensorRT does; nothing was run
            self.graph_problem = str(error)
            self._drop_graph()
            return False
        return True

    def _execute(self) -> None:
        doing = f"running a batch of {self._batch}"
        self._engine.check(self._context.execute_async_v3(self.stream.handle), doing)

    def _set_batch(self, batch: int) -> None:
        spec = self._engine.manifest.input
        shape = (batch, 3, spec.height, spec.width)
        self._engine.check(self._context.set_input_shape(INPUT, shape), f"taking an input of {shape}")
        self._batch = batch
        self._is_warm = False
        self._drop_graph()

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.free()
            self._graph = None

    def _forget_context(self) -> None:
        del self._context
