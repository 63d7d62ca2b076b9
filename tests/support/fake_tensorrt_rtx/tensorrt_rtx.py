"""TensorRT's stand-in as TensorRT-RTX: what it has beside TensorRT, under the names of the real module."""

import enum
from typing import Any

import tensorrt
from tensorrt import *  # noqa: F403
from tensorrt import MOOD, __version__, call

HEAD = f"kernels of {__version__}:".encode()


class CudaGraphStrategy(enum.IntEnum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class IRuntimeCache:
    def __init__(self) -> None:
        self._kernels: set[bytes] = set()

    def deserialize(self, blob: bytes) -> bool:
        fits = blob.startswith(HEAD)
        if fits:
            self._kernels |= set(blob[len(HEAD) :].split(b","))
        call("deserialize_cache", fits)
        return fits

    def serialize(self) -> bytes:
        return HEAD + b",".join(sorted(self._kernels))


class IRuntimeConfig:
    cuda_graph_strategy = CudaGraphStrategy.DISABLED
    _cache: IRuntimeCache | None = None

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self._cache = cache
        return True


def _create_runtime_config(self: Any) -> IRuntimeConfig:
    return IRuntimeConfig()


def _create_execution_context(self: Any, runtime_config: IRuntimeConfig | None = None) -> Any:
    context = _plain_context(self)
    if runtime_config is not None and context is not None:
        call("context", runtime_config.cuda_graph_strategy.name)
        if runtime_config._cache is not None:
            runtime_config._cache._kernels.add(b"attention")
    return context


_plain_context = tensorrt.ICudaEngine.create_execution_context
if MOOD != "no runtime config":
    tensorrt.ICudaEngine.create_runtime_config = _create_runtime_config  # type: ignore[attr-defined]
    tensorrt.ICudaEngine.create_execution_context = _create_execution_context  # type: ignore[method-assign]
