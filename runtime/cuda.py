"""CUDA for the session: the one place that knows pycuda.

Work happens in the primary context of GPU 0 (of those that CUDA_VISIBLE_DEVICES leaves), which TensorRT's and PyTorch's
CUDA runtime use too: pointers and streams can be passed between them. It is current for the length of a block and then
gives way to what was current before.
"""

import atexit
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from proscale_deploy.core.errors import DeviceError, MissingDependency

__all__ = ["Buffer", "Device", "Stream"]

_NON_BLOCKING: Final = 1
"""CU_STREAM_NON_BLOCKING: does not wait for the default stream, on which others in the process may work."""


class Device:
    """GPU 0, with its primary context.

    Args:
        extra: of this project, which brings pycuda.

    Raises:
        MissingDependency: pycuda is not installed, or does not load.
        DeviceError: CUDA fails.
    """

    def __init__(self, extra: str) -> None:
        try:
            import pycuda.driver
        except ModuleNotFoundError as error:
            raise MissingDependency("pycuda", extra, "running an engine") from error
        except ImportError as error:
            raise MissingDependency("pycuda", extra, "running an engine", str(error)) from error
        self._driver = pycuda.driver
        with self._explained("opening the GPU"):
            self._context = _primary_context(self._driver)

    @contextmanager
    def current(self, doing: str, needed: int = 0) -> Iterator[None]:
        """Make the context current on this thread for the block; blocks may stand in each other.

        Args:
            doing: for messages: "opening m.engine".
            needed: bytes of GPU memory that this takes, for the message where it runs out.

        Raises:
            DeviceError: CUDA fails in the block.
        """
        with self._explained(doing):
            self._context.push()
            try:
                yield
            except self._driver.MemoryError as error:
                raise self.out_of_memory(doing, needed) from error
            finally:
                self._context.pop()

    def out_of_memory(self, doing: str, needed: int) -> DeviceError:
        """The error to raise when memory ran out; within :meth:`current`."""
        free, total = self._driver.mem_get_info()
        return DeviceError(
            f"the GPU's memory ran out while {doing}: about {needed / 1e6:.0f} MB needed, {free / 1e6:.0f} of "
            f"{total / 1e6:.0f} MB free; close what else uses the GPU, or build with a smaller --batch"
        )

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise DeviceError(
                f"CUDA failed while {doing} ({error}); start again, and if it fails again, see the kernel's log: dmesg"
            ) from error


@functools.cache
def _primary_context(driver: Any) -> Any:
    # Retained once, to the end of the process, as by TensorRT's CUDA runtime: pycuda leaves a context that it releases
    # on the driver's stack of current ones. Released by name: its destructor would take it for no primary one.
    driver.init()
    context = driver.Device(0).retain_primary_context()
    atexit.register(context.detach)
    return context


class Stream:
    """A queue of work on the GPU. Made, used and freed within :meth:`Device.current`, as buffers are."""

    def __init__(self) -> None:
        import pycuda.driver as driver

        self._stream = driver.Stream(_NON_BLOCKING)
        # The thread sleeps while it waits: cores are needed for decoding and post-processing.
        self._done = driver.Event(driver.event_flags.BLOCKING_SYNC | driver.event_flags.DISABLE_TIMING)

    @property
    def handle(self) -> int:
        """cudaStream_t."""
        return int(self._stream.handle)

    def wait(self) -> None:
        """Until all that was queued is done."""
        self._done.record(self._stream)
        self._done.synchronize()

    def copy(self, buffer: "Buffer", count: int, *, to_device: bool) -> None:
        """Queue a copy of the first ``count`` rows of a buffer."""
        import pycuda.driver as driver

        if to_device:
            driver.memcpy_htod_async(buffer.address, buffer.host[:count], self._stream)
        else:
            driver.memcpy_dtoh_async(buffer.host[:count], buffer.address, self._stream)

    def free(self) -> None:
        del self._done, self._stream


class Buffer:
    """One tensor, on the device and in pinned host memory."""

    def __init__(self, shape: Sequence[int], dtype: DTypeLike) -> None:
        import pycuda.driver as driver

        self.host: NDArray[Any] = driver.pagelocked_empty(tuple(shape), np.dtype(dtype))
        self._memory = driver.mem_alloc(self.host.nbytes)
        self.address = int(self._memory)

    def free(self) -> None:
        """Afterwards ``host`` is gone too; so must be all views of it."""
        self._memory.free()
        pinned = self.host.base
        del self.host
        pinned.free()  # type: ignore[union-attr]
