"""Libraries in place of a plugin library, over the stand-ins for CUDA: work is done when a stream comes to it."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proscale_deploy.core.native import Library


class QueuedLibrary(Library):
    """The host library: every ``..._cuda`` function queues its twin ``..._host``, with a copy of its structures."""

    def function(self, name: str, arguments: list[Any], result: Any = ctypes.c_int32) -> Callable[..., Any]:
        if not name.endswith("_cuda"):
            return super().function(name, arguments, result)
        work = self._work(name, arguments)

        def queue(*given: Any) -> int:
            import pycuda.driver

            *task, stream = given
            copied = [_copy(argument) for argument in task]
            pycuda.driver.STREAMS[stream].add(lambda: run(copied))
            return 0

        def run(task: list[Any]) -> None:
            assert work(*task) == 0, name

        return queue

    def _work(self, name: str, arguments: list[Any]) -> Callable[..., int]:
        return super().function(f"{name.removesuffix('_cuda')}_host", arguments[:-1])


class EmulatedLibrary(QueuedLibrary):
    """The source of the kernels, compiled for the CPU (tests/plugins/emulator)."""

    def __init__(self, path: Path) -> None:
        self.path, self._library = path, ctypes.CDLL(str(path))

    def _work(self, name: str, arguments: list[Any]) -> Callable[..., int]:
        launch = Library.function(self, name, arguments)
        return lambda *task: launch(*task, None)


def _copy(argument: Any) -> Any:
    return type(argument).from_buffer_copy(argument) if isinstance(argument, ctypes.Structure) else argument
