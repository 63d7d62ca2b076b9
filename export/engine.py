"""From an ONNX file to a TensorRT engine and its sidecar. Needs onnx and TensorRT or TensorRT-RTX, not torch.

The types of the engine are those of the file: networks are strongly typed, and what was built is read back and
compared.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proscale_deploy import __version__
from proscale_deploy.core.errors import InputError
from proscale_deploy.core.files import check_not_input, check_output, replacing, using_scratch
from proscale_deploy.core.model_file import check_model_file, read_model
from proscale_deploy.core.operator import OP_TYPE, VERSION, is_operator
from proscale_deploy.core.sidecar import (
    BackendName,
    BuiltPlugin,
    HardwareCompatibility,
    Precision,
    Sidecar,
    file_sha256,
    host_platform,
    sidecar_path,
    write_sidecar,
)
from proscale_deploy.export.build_process import check_memory, run_build
from proscale_deploy.export.build_request import BuildRequest
from proscale_deploy.export.engine_graph import critical_types, graph_for_engine
from proscale_deploy.export.engine_layers import (
    check_precision,
    count,
    count_critical,
    count_layers,
    kept_types,
)

__all__ = ["BuildOptions", "build_engine"]

OPTIMIZATION_LEVELS: Final = range(6)


@dataclass(frozen=True)
class BuildOptions:
    """How to build. Raises InputError for values and combinations that no backend has."""

    backend: BackendName
    batch: tuple[int, int, int] = (1, 1, 1)
    """Smallest, best (what the engine is optimised for) and largest batch."""
    workspace: int | None = None
    """Bytes of scratch memory a layer may take; None: TensorRT's own limit, the GPU's memory."""
    optimization_level: int = 3
    """0 (quick build) to 5 (quick engine); 3 is TensorRT's own default."""
    plugin: bool = True
    """TensorRT only: the CUDA plugin for deformable attention; without it, its body of standard operators."""
    hardware_compatibility: HardwareCompatibility = "none"
    """TensorRT only."""
    version_compatible: bool = False
    """TensorRT only: later versions of the same major number load the engine."""
    targets: tuple[str, ...] = ()
    """TensorRT-RTX only: compute capabilities, "8.6"; none: its default, 8.0 and later."""

    def __post_init__(self) -> None:
        smallest, best, largest = self.batch
        if not 1 <= smallest <= best <= largest:
            raise InputError(f"expected a batch of 1 <= smallest <= best <= largest, found {self.batch}")
        if self.workspace is not None and self.workspace < 1:
            raise InputError(f"expected a positive workspace in bytes, found {self.workspace}")
        if self.optimization_level not in OPTIMIZATION_LEVELS:
            raise InputError(f"expected an optimization level from 0 to 5, found {self.optimization_level}")
        if self.backend == "tensorrt-rtx" and (self.hardware_compatibility != "none" or self.version_compatible):
            raise InputError(
                "TensorRT-RTX has no compatibility modes: an engine runs on all its targets, and with the version it "
                "was built with; choose the GPUs by targets"
            )
        if self.backend == "tensorrt" and self.targets:
            raise InputError(
                "TensorRT builds for the GPU it runs on: targets are for tensorrt-rtx; for other GPUs there is "
                "hardware compatibility"
            )
        if self.version_compatible and self.plugin:
            raise InputError(
                "a version-compatible engine cannot hold the plugin, which is compiled for one version: "
                "build it without (--no-plugin)"
            )


def build_engine(model: Path, output: Path, options: BuildOptions, progress: Callable[[str], None]) -> Sidecar:
    """Build ``output`` and its sidecar from an exported ONNX file.

    Both files replace what was there only when the engine is built in the types of the file.

    Args:
        model: written by ``proscale-deploy export``.
        output: the engine file; its folder exists.
        options: how to build.
        progress: called several times a second with what is being done.

    Raises:
        InputError: the model cannot be read, or the output not written.
        MissingDependency: onnx or the backend is not installed.
        PluginError: the plugin library is missing or does not fit.
        BuildError: there is too little memory, TensorRT refuses or fails, or the types are not those of the file.
    """
    check_not_input([output, sidecar_path(output)], [model])
    check_output(output)
    check_model_file(model)
    check_memory(model.stat().st_size)
    progress("reading the model")
    graph, manifest = read_model(model)
    plugin = options.backend == "tensorrt" and options.plugin and any(map(is_operator, graph.graph.node))
    prepared = graph_for_engine(graph, plugin=plugin)
    critical = critical_types(graph, plugin=plugin)
    del graph

    try:
        with replacing(output) as engine, tempfile.TemporaryFile() as prepared_file:
            with using_scratch():
                prepared_file.write(prepared)
                prepared_file.seek(0)
            del prepared
            request = BuildRequest(
                engine=str(engine),
                backend=options.backend,
                plugin=plugin,
                batch=options.batch,
                workspace=options.workspace,
                optimization_level=options.optimization_level,
                hardware_compatibility=options.hardware_compatibility,
                version_compatible=options.version_compatible,
                targets=options.targets,
            )
            result = run_build(request, prepared_file, progress)
            check_precision(result.layers, critical, manifest.precision, _advice(options))
            sidecar = Sidecar(
                engine_sha256=file_sha256(engine),
                onnx_sha256=file_sha256(model),
                backend=options.backend,
                backend_version=result.backend_version,
                platform=host_platform(),
                gpu=result.gpu,
                compute_capability=result.compute_capability,
                targets=options.targets,
                hardware_compatibility=options.hardware_compatibility,
                version_compatible=options.version_compatible,
                batch=options.batch,
                workspace=options.workspace,
                optimization_level=options.optimization_level,
                plugin=BuiltPlugin(OP_TYPE, str(VERSION), result.plugin_sha256) if result.plugin_sha256 else None,
                precision=Precision(
                    evidence=result.evidence,
                    layers=count_layers(result.layers),
                    critical=count_critical(result.layers, critical),
                    in_file=count(critical.values()),
                    kept=kept_types(result.layers, critical),
                ),
                seconds=round(result.seconds, 1),
                version=__version__,
                manifest=manifest,
            )
        write_sidecar(output, sidecar)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from error
    return sidecar


def _advice(options: BuildOptions) -> str:
    """What to do about an engine that is not of the file's types."""
    oldest, *newer = sorted(options.targets, key=float) or [""]
    if newer:  # seen from TensorRT-RTX 1.7: the layers of an engine for 7.5 and 8.6 are those of one for 7.5
        return (
            f"an engine for several GPUs has the kernels that the oldest of them, sm_{oldest.replace('.', '')}, has; "
            "leave that out of --target and build an engine of its own for it, from a file of another precision"
        )
    gpu = f"compute capability {oldest}" if oldest else "this GPU"
    return f"this version of TensorRT has no such kernels for {gpu}; use a file of another precision"
