"""The child process of a build: ``python -m proscale_deploy.export.build_child REQUEST FD``.

Everything that may crash, hang or be killed for memory happens here: TensorRT and the plugin are loaded in no other
place. REQUEST is JSON, the ONNX file comes on the standard input, and FD is a pipe on which lines of JSON go back:
``{"progress": ...}``, in the end ``{"done": ...}`` or ``{"failed": [error class, message]}``.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import BuildError, DeployError, InputError, PluginError
from proscale_deploy.core.files import cache_folder, replacing
from proscale_deploy.core.gpu import Gpu, default_gpu
from proscale_deploy.export.backend import Backend
from proscale_deploy.export.build_request import BuildRequest, BuildResult
from proscale_deploy.export.engine_layers import LOG_HEAD, Layer, layers_of_inspector, layers_of_log
from proscale_deploy.export.parser_errors import explain, read_errors

INPUT: Final = "image"
_SECONDS_BETWEEN_REPORTS: Final = 0.1


def build(request: BuildRequest, graph: IO[bytes], tell: Callable[[str], bool]) -> BuildResult:
    """Build the engine file of a request.

    Args:
        request: what to build.
        graph: the ONNX file, open.
        tell: takes what is being done; false if nobody listens any more.

    Raises:
        DeployError: of any class; the message says what to do.
    """
    backend = Backend.load(request.backend)
    tell(f"{request.backend} {backend.version}")
    log = _log(backend.trt)
    library = _load_plugin(backend) if request.plugin else None
    builder = backend.builder(log)
    network = backend.network(builder)
    tell("parsing")
    parser = backend.trt.OnnxParser(network, log)
    if not parser.parse(graph.read()):
        raise BuildError(explain(read_errors(parser)))

    monitor = _monitor(backend.trt, tell)
    config = backend.config(
        builder, workspace=request.workspace, optimization_level=request.optimization_level, progress=monitor
    )
    backend.set_compatibility(
        config, targets=request.targets, hardware=request.hardware_compatibility, version=request.version_compatible
    )
    config.add_optimization_profile(_profile(builder, network, request.batch))
    gpu = default_gpu()
    cache_file = _timing_cache(backend, gpu)
    backend.load_timing_cache(config, cache_file)

    started = time.monotonic()
    engine = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - started
    if engine is None:
        raise BuildError(_reason(log.errors, request.workspace))
    _write(Path(request.engine), engine)
    _keep(cache_file, backend.timing_cache(config))
    tell("inspecting")
    layers, evidence = _layers(backend, log, engine)
    return BuildResult(
        backend_version=backend.version,
        gpu=gpu.name if gpu else None,
        compute_capability=gpu.capability if gpu else None,
        plugin_sha256=plugin_library.sha256(library) if library else None,
        evidence=evidence,
        layers=tuple(layers),
        seconds=seconds,
    )


def _load_plugin(backend: Backend) -> Path:
    library = plugin_library.find_plugin(backend.version)
    if problem := plugin_library.problem(library):
        place = "" if str(library) in problem else f"{library}: "
        raise PluginError(f"{place}{problem}, --no-plugin builds without it")
    backend.load_plugin(library)
    return library


def _profile(builder: Any, network: Any, batch: tuple[int, int, int]) -> Any:
    image = network.get_input(0)
    if network.num_inputs != 1 or image.name != INPUT:
        names = ", ".join(network.get_input(index).name for index in range(network.num_inputs))
        raise BuildError(f"expected one input {INPUT!r}, found {names}; export the model again")
    profile = builder.create_optimization_profile()
    shape = tuple(image.shape)
    profile.set_shape(INPUT, *((count, *shape[1:]) for count in batch))
    return profile


def _layers(backend: Backend, log: Any, engine: Any) -> tuple[list[Layer], Any]:
    if text := backend.inspect(log, engine):
        try:
            return layers_of_inspector(text), "engine inspector"
        except BuildError:
            if not log.layers:
                raise
    if not log.layers:
        raise BuildError(
            f"{backend.name} {backend.version} neither loads the engine here nor lists its layers: the types it was "
            "built in cannot be checked; build on the target"
        )
    return layers_of_log(log.layers), "builder log"


def _reason(said: list[str], workspace: int | None) -> str:
    text = " ".join(said[-1].split()) if said else "no reason given"
    lowered = " ".join(said).lower()
    if "out of memory" in lowered or "memory allocation" in lowered or "outofmemory" in lowered:
        advice = "the GPU's memory is too small: close what else uses it, or a smaller --batch"
    elif workspace is not None and "workspace" in lowered:
        advice = f"--workspace {workspace >> 20} is too small for some layer: give more, or leave it out"
    elif "turing" in lowered:
        advice = (
            "Turing GPUs (sm_75) take FP16 files only: export with --precision fp16, or leave sm_75 out of --target"
        )
    elif "driver version" in lowered or "no cuda-capable device" in lowered:
        advice = "this machine has no NVIDIA GPU and driver that fit; build on the target"
    else:
        advice = "try --optimization-level 2, a newer version, or --no-plugin"
    return f"TensorRT could not build the engine ({text}); {advice}"


def _timing_cache(backend: Backend, gpu: Gpu | None) -> Path:
    device = f"{gpu.name.replace(' ', '-').replace('/', '-')}-{gpu.capability}" if gpu else "no-gpu"
    return cache_folder() / f"{backend.name}-{backend.version}-{device}.timing"


def _write(file: Path, engine: Any) -> None:
    try:
        file.write_bytes(engine)
    except OSError as error:
        raise InputError(
            f"cannot write the engine, {memoryview(engine).nbytes / 1e6:.0f} MB, to {file.parent}: {error.strerror}; "
            "make room there, or give another --output"
        ) from error


def _keep(file: Path, cache: bytes | None) -> None:
    """Losing a cache costs minutes in the next build, which is no reason to lose this one."""
    if cache is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_bytes(cache)
    except OSError as error:
        print(f"timing cache not kept: {error}", file=sys.stderr)


def _log(trt: Any) -> Any:
    """A logger that keeps the errors and the message that lists the layers; bindings let it be a subclass only."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(message)
                with contextlib.suppress(OSError):  # an exception here ends the process: it is called by C++
                    print(message, file=sys.stderr, flush=True)
            elif message.startswith(LOG_HEAD):
                self.layers = message

    return Log()


def _monitor(trt: Any, tell: Callable[[str], bool]) -> Any:
    """Reports the innermost phase; called from several threads."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._told = 0.0

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._steps[name] = steps

        def phase_finish(self, name: str) -> None:
            self._steps.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self._told < _SECONDS_BETWEEN_REPORTS:
                return True
            self._told = now
            return tell(f"{name[:1].lower()}{name[1:]}, {step + 1} of {self._steps.get(name, 0)}")

    return Monitor()


def main(request: str, descriptor: str) -> None:
    pipe = os.fdopen(int(descriptor), "w", encoding="utf-8")

    def send(**message: Any) -> bool:
        try:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()
        except BrokenPipeError:  # the parent is gone: end the build
            return False
        return True

    try:
        result = build(BuildRequest.from_json(request), sys.stdin.buffer, lambda text: send(progress=text))
        send(done=result.to_dict())
    except DeployError as error:
        send(failed=[type(error).__name__, str(error)])


if __name__ == "__main__":
    main(*sys.argv[1:])
