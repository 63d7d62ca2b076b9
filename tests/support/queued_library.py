"""The host library in place of a plugin library, over the stand-ins for CUDA."""

import ctypes
from collections.abc import Callable
from typing import Any

from proscale_deploy.core.native import Library


class QueuedLibrary(Library):
    """Every ``..._cuda`` function queues its twin ``..._host``, with a copy of the structures that it was given."""

    def function(self, name: str, arguments: list[Any], result: Any = ctypes.c_int32) -> Callable[..., Any]:
        if not name.endswith("_cuda"):
            return super().function(name, arguments, result)
        import pycuda.driver

        host = super().function(f"{name.removesuffix('_cuda')}_host", arguments[:-1])

        def queue(*given: Any) -> int:
            *task, stream = given
            copied = [
                type(value).from_buffer_copy(value) if isinstance(value, ctypes.Structure) else value for value in task
            ]
            pycuda.driver.STREAMS[stream].add(lambda: run(copied))
            return 0

        def run(task: list[Any]) -> None:
            assert host(*task) == 0, name

        return queue


def _copy(argument: Any) -> Any:
    return type(argument).from_buffer_copy(argument) if isinstance(argument, ctypes.Structure) else argument
