"""CUDA graphs, which pycuda has not: work is captured from a stream once, and launched again with one call.

The functions are the driver's own, in the context that is current; streams are given by their handles.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any, Final

__all__ = ["CaptureError", "Graph"]

_THREAD_LOCAL: Final = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads of the process may allocate meanwhile."""


class CaptureError(Exception):
    """Why work does not become a graph: it has to be queued piece by piece."""


class Graph:
    """Work of one stream, ready to be launched. It holds the addresses of all memory that the work uses.

    Whatever the work does when it first runs (loading kernels, allocating) cannot be captured: run it once before.

    Args:
        stream: cudaStream_t, not the default one.
        queue: queues the work on it, and nothing elsewhere.

    Raises:
        CaptureError: the work cannot be captured; the stream is as it was, and none of the work was done.
    """

    def __init__(self, stream: int, queue: Callable[[], None]) -> None:
        captured = ctypes.c_void_p()
        _call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), _THREAD_LOCAL)
        try:
            queue()
        except Exception:
            _end(stream, captured)
            _destroy(captured)
            raise
        if status := _end(stream, captured):
            raise CaptureError(f"cuStreamEndCapture: {_error_name(status)}")
        self._graph = ctypes.c_void_p()
        try:
            _call("cuGraphInstantiateWithFlags", ctypes.byref(self._graph), captured, ctypes.c_ulonglong(0))
        finally:
            _destroy(captured)

    def launch(self, stream: int) -> None:
        """Queue the work.

        Raises:
            CaptureError: the driver refuses.
        """
        _call("cuGraphLaunch", self._graph, ctypes.c_void_p(stream))

    def free(self) -> None:
        """Within the context; calling twice does no harm."""
        if self._graph:
            _driver().cuGraphExecDestroy(self._graph)
            self._graph = ctypes.c_void_p()


def _end(stream: int, captured: ctypes.c_void_p) -> int:
    return int(_driver().cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(captured)))


def _destroy(captured: ctypes.c_void_p) -> None:
    if captured:
        _driver().cuGraphDestroy(captured)


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_driver(), name)(*arguments)
    if status:
        raise CaptureError(f"{name}: {_error_name(status)}")


def _error_name(status: int) -> str:
    name = ctypes.c_char_p()
    _driver().cuGetErrorName(status, ctypes.byref(name))
    return f"{name.value.decode() if name.value else 'unknown error'} ({status})"


@functools.cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")
