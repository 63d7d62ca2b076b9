"""What TensorRT-RTX has beside TensorRT: it compiles an engine's kernels on the machine that runs it.

They are kept on disk, so that this is done once, and captured as CUDA graphs by the library itself, which knows when
all are compiled.
"""

import re
from pathlib import Path
from typing import Any

from proscale_deploy.core.files import cache_folder, replacing
from proscale_deploy.core.sidecar import Sidecar

__all__ = ["RtxRuntime"]


class RtxRuntime:
    """Makes the execution contexts of one engine.

    The library checks a cache that it is given: one of another version or GPU, or a damaged one, is not taken. The file
    is named after all three nevertheless, so that machines that share a home do not take turns in overwriting it.
    """

    def __init__(self, trt: Any, engine: Any, sidecar: Sidecar, gpu: str) -> None:
        self._engine = engine
        words = (sidecar.engine_sha256[:16], gpu, str(trt.__version__))
        name = "-".join(re.sub(r"[^\w.]+", "-", word) for word in words)
        self._file = cache_folder() / f"{name}.rtx-kernels"
        self._config: Any = None
        self._cache: Any = None
        self._known: bytes | None = None
        self.graphs = "none, as TensorRT-RTX before 1.2 has none"
        if not hasattr(engine, "create_runtime_config"):
            return  # TensorRT-RTX 1.0
        self._config = engine.create_runtime_config()
        if hasattr(trt, "CudaGraphStrategy"):  # since TensorRT-RTX 1.2
            self._config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            self.graphs = "captured by TensorRT-RTX"
        if hasattr(self._config, "create_runtime_cache"):
            self._cache = self._config.create_runtime_cache()
            known = _read(self._file)
            if known is not None and self._cache.deserialize(known):
                self._known = known
            self._config.set_runtime_cache(self._cache)

    def new_context(self) -> Any:
        """An execution context; None if TensorRT-RTX fails."""
        if self._config is None:
            return self._engine.create_execution_context()
        return self._engine.create_execution_context(self._config)

    def keep(self) -> None:
        """Write what is compiled by now, if that is more than before. Losing it costs seconds: nothing is raised."""
        if self._cache is None:
            return
        serialized = self._cache.serialize()
        compiled = bytes(serialized) if serialized is not None else b""
        if not compiled or compiled == self._known:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._file) as temporary:
                temporary.write_bytes(compiled)
        except OSError:
            return
        self._known = compiled


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None
