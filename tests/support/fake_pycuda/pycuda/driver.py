"""What runtime/gpu/cuda.py takes from ``pycuda.driver``, strict where CUDA is: nothing without a current context,
nothing done before somebody waits for it, nothing freed twice. FAKE_CUDA_MOOD says what is to go wrong.
"""

import ctypes
import enum
import itertools
import os
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

LIVE: "weakref.WeakSet[object]" = weakref.WeakSet()
"""What was made and not freed; nothing outlives its Python object."""
STACK: list["Context"] = []
OWNED = {"device": 0, "pinned": 0}
"""Bytes allocated and not freed."""
PEAK = {"device": 0, "pinned": 0}
STREAMS: "weakref.WeakValueDictionary[int, Stream]" = weakref.WeakValueDictionary()
RETAINED: list["Context"] = []
_handles = itertools.count(4096)


class Error(Exception): ...


class MemoryError(Error): ...


class LogicError(Error): ...


class LaunchError(Error): ...


class event_flags(enum.IntFlag):
    DEFAULT = 0
    BLOCKING_SYNC = 1
    DISABLE_TIMING = 2


class Context:
    def push(self) -> None:
        STACK.append(self)

    @staticmethod
    def pop() -> None:
        if not STACK:
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        STACK.pop()

    def detach(self) -> None: ...


class Device:
    def __init__(self, number: int) -> None:
        assert number == 0

    def retain_primary_context(self) -> Context:
        RETAINED.append(Context())
        return RETAINED[-1]


def init(flags: int = 0) -> None:
    if _mood() == "no driver":
        raise LogicError("cuInit failed: CUDA driver version is insufficient for CUDA runtime version")


def mem_get_info() -> tuple[int, int]:
    _need_context("mem_get_info")
    return 300_000_000, 8_000_000_000


class _Allocation:
    kind: str

    def __init__(self, size: int) -> None:
        _need_context("cuMemAlloc")
        assert size > 0
        self._size = size
        OWNED[self.kind] += size
        PEAK[self.kind] = max(PEAK[self.kind], OWNED[self.kind])
        self.memory = (ctypes.c_char * size).from_buffer(bytearray(b"\xff" * size))  # NaN
        LIVE.add(self)

    def free(self) -> None:
        _need_context("cuMemFree")
        if self not in LIVE:
            raise LogicError("free failed: invalid resource handle")
        LIVE.remove(self)
        OWNED[self.kind] -= self._size


class DeviceAllocation(_Allocation):
    kind = "device"

    def __int__(self) -> int:
        return ctypes.addressof(self.memory)


class PagelockedHostAllocation(_Allocation):
    kind = "pinned"

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {
            "shape": (len(self.memory),),
            "typestr": "|u1",
            "data": (ctypes.addressof(self.memory), False),
            "version": 3,
        }


class _Pinned(np.ndarray):
    """An array whose base is the allocation, as pycuda's are; numpy sets no such base."""

    allocation: PagelockedHostAllocation

    @property
    def base(self) -> Any:
        return self.allocation


def pagelocked_empty(shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
    allocation = PagelockedHostAllocation(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    array = np.asarray(allocation).view(dtype).reshape(shape).view(_Pinned)
    array.allocation = allocation
    return array


def mem_alloc(size: int) -> DeviceAllocation:
    if _mood() == "out of memory":
        raise MemoryError("cuMemAlloc failed: out of memory")
    return DeviceAllocation(size)


class Stream:
    def __init__(self, flags: int = 0) -> None:
        _need_context("cuStreamCreate")
        self.handle = next(_handles)
        self.queue: list[Callable[[], None]] = []
        self.captured: list[Callable[[], None]] | None = None
        STREAMS[self.handle] = self
        LIVE.add(self)

    def add(self, work: Callable[[], None]) -> None:
        (self.queue if self.captured is None else self.captured).append(work)

    def synchronize(self) -> None:
        _need_context("cuStreamSynchronize")
        _fail_if_asked("cuStreamSynchronize", self)
        while self.queue:
            self.queue.pop(0)()


class Event:
    def __init__(self, flags: int = 0) -> None:
        _need_context("cuEventCreate")
        self._stream: Stream | None = None
        self._time: float | None = None
        LIVE.add(self)

    def record(self, stream: Stream | None = None) -> "Event":
        assert stream is not None
        self._stream, self._time = stream, None
        stream.add(self._reached)
        return self

    def _reached(self) -> None:
        self._time = time.perf_counter()

    def synchronize(self) -> "Event":
        """What was queued before the mark is done now, and no more."""
        _need_context("cuEventSynchronize")
        assert self._stream is not None
        _fail_if_asked("cuEventSynchronize", self._stream)
        while self._time is None:
            self._stream.queue.pop(0)()
        return self

    def time_since(self, event: "Event") -> float:
        if self._time is None or event._time is None:
            raise LogicError("cuEventElapsedTime failed: device not ready")
        return 1000 * (self._time - event._time)


def memcpy_htod_async(dest: int, src: np.ndarray, stream: Stream | None = None) -> None:
    _queue_copy(dest, src.ctypes.data, src, stream)


def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Stream | None = None) -> None:
    _queue_copy(dest.ctypes.data, src, dest, stream)


def _queue_copy(dest: int, src: int, array: np.ndarray, stream: Stream | None) -> None:
    _need_context("cuMemcpyAsync")
    assert stream is not None
    assert array.flags.c_contiguous
    stream.add(lambda: ctypes.memmove(dest, src, array.nbytes) and None)


def memset_d8_async(dest: int, data: int, count: int, stream: Stream | None = None) -> None:
    _need_context("cuMemsetD8Async")
    assert stream is not None
    stream.add(lambda: ctypes.memset(dest, data, count) and None)


def _fail_if_asked(what: str, stream: Stream) -> None:
    if _mood() == "kernel fails":
        stream.queue.clear()  # nothing runs after it
        raise LaunchError(f"{what} failed: an illegal memory access was encountered")


def _need_context(what: str) -> None:
    if not STACK or STACK[-1] not in RETAINED:
        raise LogicError(f"{what} failed: invalid device context")
    captures = any(stream.captured is not None for stream in STREAMS.values())
    if captures and what.partition("cu")[2].startswith(("MemAlloc", "MemFree", "Stream", "Event")):
        raise LogicError(f"{what} failed: operation not permitted when stream is capturing")


def _mood() -> str:
    return os.environ.get("FAKE_CUDA_MOOD", "")
