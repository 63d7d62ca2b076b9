"""TensorRT 10.3 to 11 and TensorRT-RTX behind one set of calls: all that differs between them is in this file.

The names were checked against the sources of the Python bindings of 10.3.0, 10.13.3 and 11.1 (tests/support has them).
Of the calls here, all those of TensorRT-RTX 1.7 were seen to run, on machines without a GPU; those of TensorRT were run
against a stand-in only.

| | tensorrt | tensorrt-rtx |
|---|---|---|
| needs a GPU to build | yes | no |
| plugins | yes | no |
| other GPUs than the one at hand | hardware compatibility level | list of compute capabilities |
| timing cache | yes | no-op, deprecated since 1.2 |
| version-compatible engines | yes | no: flag taken, not documented |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from proscale_deploy.core.errors import BuildError
from proscale_deploy.core.sidecar import BackendName, HardwareCompatibility
from proscale_deploy.core.trt import import_trt, load_plugin

__all__ = ["Backend"]

_EXTRAS: Final = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx-build"}
"""Backend -> extra of this project."""

_HARDWARE: Final = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}
"""Members of HardwareCompatibilityLevel; 10.3 has the first only."""


@dataclass(frozen=True)
class Backend:
    """One of the two libraries, imported."""

    name: BackendName
    trt: Any
    """The Python module."""

    @classmethod
    def load(cls, name: BackendName) -> "Backend":
        """Import the library.

        Raises:
            MissingDependency: it is not installed, or does not load.
        """
        return cls(name, import_trt(name, extra=_EXTRAS[name], purpose=f"building with --backend {name}"))

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def is_rtx(self) -> bool:
        return self.name == "tensorrt-rtx"

    def builder(self, logger: Any) -> Any:
        """A builder.

        Raises:
            BuildError: the library cannot make one, for want of a GPU in nearly all cases.
        """
        try:
            return self.trt.Builder(logger)
        except TypeError as error:  # pybind11: "factory function returned nullptr"
            raise BuildError(
                "TensorRT makes no builder here, as on a machine without an NVIDIA GPU and driver; "
                "build on the target, or with --backend tensorrt-rtx"
            ) from error

    def network(self, builder: Any) -> Any:
        """An empty network, strongly typed: the types of the file are those of the engine."""
        # From 11 on every network is; the flag is still there in 11.1, deprecated.
        flag = getattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return builder.create_network(0 if flag is None else 1 << int(flag))

    def config(self, builder: Any, *, workspace: int | None, optimization_level: int, progress: Any) -> Any:
        """A builder configuration with what is alike everywhere; ``workspace`` in bytes."""
        trt = self.trt
        config = builder.create_builder_config()
        # 10 bits of mantissa would make FP32 islands in an FP16 file as coarse as what surrounds them.
        config.clear_flag(trt.BuilderFlag.TF32)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the inspector; no cost at run time
        config.builder_optimization_level = optimization_level
        config.progress_monitor = progress
        if workspace is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
        return config

    def set_compatibility(
        self, config: Any, *, targets: Sequence[str], hardware: HardwareCompatibility, version: bool
    ) -> None:
        """On which GPUs and versions the engine is to run, besides those at hand.

        Args:
            config: the builder configuration.
            targets: compute capabilities for TensorRT-RTX, "8.6"; none: its default, 8.0 and later.
            hardware: TensorRT's compatibility level.
            version: whether later versions of the same major number shall load the engine.

        Raises:
            BuildError: the library has no such mode.
        """
        trt = self.trt
        if targets:
            config.num_compute_capabilities = len(targets)
            for index, target in enumerate(targets):
                capability = getattr(trt.ComputeCapability, f"SM{target.replace('.', '')}", None)
                if capability is None or not config.set_compute_capability(capability, index):
                    known = sorted(int(name[2:]) for name in dir(trt.ComputeCapability) if name.startswith("SM"))
                    raise BuildError(
                        f"TensorRT-RTX {self.version} has no target sm_{target.replace('.', '')}; "
                        f"it has {', '.join(f'sm_{number}' for number in known)}"
                    )
        if hardware != "none":
            level = getattr(trt.HardwareCompatibilityLevel, _HARDWARE[hardware], None)
            if level is None:
                raise BuildError(f"TensorRT {self.version} has no hardware compatibility {hardware}; use ampere-plus")
            config.hardware_compatibility_level = level
        if version:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)

    def load_timing_cache(self, config: Any, file: Path) -> None:
        """Give the builder what it measured in earlier builds; nothing with TensorRT-RTX, which measures nothing."""
        if self.is_rtx:
            return
        content = file.read_bytes() if file.is_file() else b""
        cache = config.create_timing_cache(content)
        # None: damaged. False: measured with another version or GPU than the name of the file says.
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def timing_cache(self, config: Any) -> bytes | None:
        """What is to be kept for later builds."""
        cache = None if self.is_rtx else config.get_timing_cache()
        return None if cache is None else bytes(cache.serialize())

    def load_plugin(self, library: Path) -> None:
        """See :func:`proscale_deploy.core.trt.load_plugin`."""
        load_plugin(self.trt, library)

    def inspect(self, logger: Any, engine: Any) -> str | None:
        """The engine inspector's JSON of a serialised engine; None where it cannot be loaded, for want of a GPU."""
        runtime = self.trt.Runtime(logger)
        runtime.engine_host_code_allowed = True  # a version-compatible engine brings the code that runs it
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            return None
        form = self.trt.LayerInformationFormat.JSON
        return str(loaded.create_engine_inspector().get_engine_information(form))
