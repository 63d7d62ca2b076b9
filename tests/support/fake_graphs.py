"""The driver's functions for CUDA graphs, over the streams of the stand-in for pycuda."""

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

UNSUPPORTED = 900
"""CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"""

INVALIDATED = 901
"""CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"""

THREAD_LOCAL = 1


class _Work:
    """A graph, or one that can be launched."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work


class FakeGraphs:
    """Takes the place of libcuda; ``failing`` names functions that are to return an error."""

    def __init__(self, driver: Callable[[], Any]) -> None:
        self._driver = driver  # the module as it is imported at that time
        self._made: dict[int, _Work] = {}
        self._handles = itertools.count(100)
        self.failing: set[str] = set()
        self.begun = self.captures = self.launches = 0

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: int) -> int:
        self.begun += 1
        if "cuStreamBeginCapture_v2" in self.failing:
            return UNSUPPORTED
        native = self._driver().STREAMS[stream.value]
        assert mode == THREAD_LOCAL
        assert native.captured is None
        native.captured = []
        return 0

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:
        native = self._driver().STREAMS[stream.value]
        work, native.captured = native.captured, None
        if "cuStreamEndCapture" in self.failing:
            return INVALIDATED
        graph._obj.value = self._make(work)
        self.captures += 1
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: ctypes.c_void_p, flags: ctypes.c_ulonglong) -> int:
        assert flags.value == 0
        if "cuGraphInstantiateWithFlags" in self.failing:
            return UNSUPPORTED
        executable._obj.value = self._make(self._at(graph).work)
        return 0

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        if "cuGraphLaunch" in self.failing:
            return UNSUPPORTED
        for work in self._at(executable).work:
            self._driver().STREAMS[stream.value].add(work)
        self.launches += 1
        return 0

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        return self._destroy(graph)

    def cuGraphExecDestroy(self, executable: ctypes.c_void_p) -> int:
        return self._destroy(executable)

    def cuGetErrorName(self, status: int, name: Any) -> int:
        assert status in (UNSUPPORTED, INVALIDATED)
        name._obj.value = b"CUDA_ERROR_STREAM_CAPTURE"
        return 0

    def _make(self, work: list[Callable[[], None]]) -> int:
        made = _Work(work)
        self._driver().LIVE.add(made)
        handle = next(self._handles)
        self._made[handle] = made
        return handle

    def _at(self, handle: ctypes.c_void_p) -> _Work:
        assert handle.value is not None
        return self._made[handle.value]

    def _destroy(self, handle: ctypes.c_void_p) -> int:
        assert handle.value is not None
        self._driver().LIVE.remove(self._made.pop(handle.value))
        return 0
