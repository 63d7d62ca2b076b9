"""CUDA for the session: the one place that knows pycuda.

Work happens in the primary context of GPU 0 (of those that CUDA_VISIBLE_DEVICES leaves), which TensorRT's and PyTorch's
CUDA runtime use too: pointers and streams can be passed between them. It is current for the length of a block and then
gives way to what was current before. All but :class:`Device` is made, used and freed in such a block.
"""

import atexit
import functools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from proscale_deploy.core.errors import DeviceError, MissingDependency, OutOfMemory

__all__ = ["Buffer", "Device", "Event", "Stream"]

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
            OutOfMemory: the GPU's memory is too small for what the block does.
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

    def out_of_memory(self, doing: str, needed: int) -> OutOfMemory:
        """The error to raise when memory ran out; within :meth:`current`."""
        free, total = self._driver.mem_get_info()
        return OutOfMemory(
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


class Event:
    """A mark in a stream, with its time."""

    def __init__(self) -> None:
        import pycuda.driver as driver

        # The thread sleeps while it waits: cores are needed for decoding and post-processing.
        self._event = driver.Event(driver.event_flags.BLOCKING_SYNC)

    def record(self, stream: "Stream") -> None:
        """Mark what was queued so far."""
        self._event.record(stream.native)

    def wait(self) -> None:
        """Until all that was queued before the mark is done."""
        self._event.synchronize()

    def seconds_since(self, earlier: "Event") -> float:
        """On the device, between two marks that were waited for."""
        return float(self._event.time_since(earlier._event)) / 1000

    def free(self) -> None:
        del self._event


class Stream:
    """A queue of work on the GPU."""

    def __init__(self) -> None:
        import pycuda.driver as driver

        self._driver = driver
        self.native = driver.Stream(_NON_BLOCKING)

    @property
    def handle(self) -> int:
        """cudaStream_t."""
        return int(self.native.handle)

    def wait(self) -> None:
        """Until all that was queued is done."""
        self.native.synchronize()

    def drain(self) -> None:
        """Wait until nothing is queued any more, whatever came of it: who waits for results is told."""
        with suppress(self._driver.Error):
            self.native.synchronize()

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Queue a copy to the device; it overlaps with other work where the array is pinned."""
        self._driver.memcpy_htod_async(address, array, self.native)

    def download(self, array: NDArray[Any], address: int) -> None:
        """Queue a copy from the device."""
        self._driver.memcpy_dtoh_async(array, address, self.native)

    def send(self, buffer: "Buffer", array: NDArray[Any]) -> None:
        """Queue a copy to a buffer, by way of its pinned memory: ``array`` may change at once."""
        pinned = buffer.host(array.shape, array.dtype)
        np.copyto(pinned, array)
        self.upload(buffer.address, pinned)

    def fetch(self, buffer: "Buffer", shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Queue a copy of a buffer to its pinned memory, which is returned: filled once the copy was waited for."""
        pinned = buffer.host(shape, dtype)
        self.download(pinned, buffer.address)
        return pinned

    def clear(self, address: int, size: int) -> None:
        """Queue the writing of ``size`` zero bytes."""
        self._driver.memset_d8_async(address, 0, size, self.native)

    def free(self) -> None:
        del self.native


class Buffer:
    """Memory on the device and, once that is asked for, as much pinned memory on the host."""

    def __init__(self, size: int = 0) -> None:
        """``size`` in bytes; 0: none yet."""
        import pycuda.driver as driver

        self._driver = driver
        self._memory: Any = None
        self._pinned: NDArray[np.uint8] | None = None
        self.size = 0
        self.reserve(size)

    @property
    def address(self) -> int:
        """On the device."""
        return int(self._memory)

    def reserve(self, size: int) -> None:
        """Have ``size`` bytes at least; what was in a smaller buffer is lost, and nothing may be using it."""
        if size > self.size:
            self.free()
            self._memory = self._driver.mem_alloc(size)
            self.size = size

    def host(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """The pinned memory as an array; it is gone after :meth:`reserve` of more and after :meth:`free`."""
        if self._pinned is None:
            self._pinned = self._driver.pagelocked_empty((self.size,), np.uint8)
        dtype = np.dtype(dtype)
        array: NDArray[Any] = self._pinned[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
        return array

    def unpin(self) -> None:
        """Free the pinned memory."""
        if self._pinned is not None:
            allocation = self._pinned.base
            self._pinned = None
            allocation.free()  # type: ignore[union-attr]

    def free(self) -> None:
        """Free both; calling twice does no harm."""
        if self._memory is not None:
            self._memory.free()
        self._memory, self.size = None, 0
        self.unpin()
