"""``build``: an ONNX file becomes a TensorRT engine."""

import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proscale_deploy.cli.verify import compare, print_result, refuse_exceeded
from proscale_deploy.core.errors import DeviceError, EngineMismatch, InputError, MissingDependency, PluginError

if TYPE_CHECKING:
    from proscale_deploy.core.sidecar import Sidecar
    from proscale_deploy.runtime.streams.source import Frame, Source

_FRAMES = "|/-\\"
_SECONDS_BETWEEN_LINES = 30
"""Where no terminal shows a spinner."""

_MOST = 32
"""Pictures to verify an engine on."""
_MADE_UP = 8
_MADE_UP_SIZE = (540, 960)


class _BatchType(click.ParamType):  # type: ignore[type-arg]
    name = "N|MIN,OPT,MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,6})(?:,(\d{1,6}),(\d{1,6}))?", str(value).replace(" ", ""))
        if match is None:
            self.fail(f"{value!r} is neither a number nor three; for instance 1 or 1,4,8", param, ctx)
        smallest, best, largest = (int(number or match[1]) for number in match.groups())
        if not 1 <= smallest <= best <= largest:
            self.fail(f"{value!r} does not rise from 1 or more; for instance 1,4,8", param, ctx)
        return smallest, best, largest


class _TargetsType(click.ParamType):  # type: ignore[type-arg]
    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        found = [re.fullmatch(r"sm_(\d{1,2})(\d)", part.strip()) for part in str(value).split(",")]
        if not all(found):
            self.fail(f"{value!r} is not a list of GPU architectures; for instance sm_86,sm_89,sm_120", param, ctx)
        return tuple(dict.fromkeys(f"{match[1]}.{match[2]}" for match in found if match))


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The engine file to write.")
@click.option(
    "--backend",
    required=True,
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="tensorrt builds for the GPU it runs on; tensorrt-rtx needs none.",
)
@click.option("--batch", type=_BatchType(), default="1", help="One batch size, or smallest, best and largest: 1,4,8.")
@click.option(
    "--workspace",
    type=click.IntRange(1),
    metavar="MIB",
    help="Most scratch memory of a layer.  [default: no limit]",
)
@click.option(
    "--optimization-level", type=click.IntRange(0, 5), default=3, help="0: quick build; 5: quick engine, slow build."
)
@click.option("--no-plugin", is_flag=True, help="tensorrt: deformable attention without the CUDA plugin.")
@click.option(
    "--hardware-compatibility",
    type=click.Choice(["none", "ampere-plus", "same-compute-capability"]),
    default="none",
    help="tensorrt: other GPUs that are to run the engine. It may cost speed.",
)
@click.option(
    "--version-compatible",
    is_flag=True,
    help="tensorrt: later versions of the same major number run the engine. Takes --no-plugin.",
)
@click.option(
    "--target",
    "targets",
    type=_TargetsType(),
    default=(),
    show_default=False,
    help="tensorrt-rtx: the GPUs, for instance sm_86,sm_89,sm_120.  [default: sm_80 and later]",
)
@click.option(
    "--data",
    help="Real pictures to verify the engine on: an image, a folder, a glob in quotes, or a video.  [default: made-up "
    "ones]",
)
def build(
    model: Path,
    output: Path,
    backend: str,
    batch: tuple[int, int, int],
    workspace: int | None,
    optimization_level: int,
    no_plugin: bool,
    hardware_compatibility: Any,
    version_compatible: bool,
    targets: tuple[str, ...],
    data: str | None,
) -> None:
    """Build a TensorRT engine from MODEL, an exported ONNX file.

    The types of the engine (FP32, FP16, INT8) are those of the file. OUTPUT.json, written beside it, says where the
    engine runs: keep the two together. In the end the engine is compared with MODEL, where this machine can run it.

    \b
      proscale-deploy build model.onnx --output model.engine --backend tensorrt --batch 1,4,8
      proscale-deploy build model.onnx --output model.engine --backend tensorrt-rtx --target sm_86,sm_120
    """
    if output.suffix.lower() != ".engine":
        engine = shlex.quote(str(output.with_suffix(".engine")))
        raise InputError(f"cannot write {output}: build writes engines; type --output {engine}")
    try:
        from proscale_deploy.export.engine import BuildOptions, build_engine
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "a package", "cpu", "proscale-deploy build") from error

    options = BuildOptions(
        backend=backend,  # type: ignore[arg-type]
        batch=batch,
        workspace=workspace and workspace << 20,
        optimization_level=optimization_level,
        plugin=not no_plugin,
        hardware_compatibility=hardware_compatibility,
        version_compatible=version_compatible,
        targets=targets,
    )
    with _pictures(data) as pictures:
        with _progress() as tell:
            sidecar = build_engine(model, output, options, tell)
        _print(output, sidecar)
        _verify(model, output, pictures, real=data is not None)


def _print(output: Path, sidecar: "Sidecar") -> None:
    from proscale_deploy.cli.inspect import engine_rows

    rows = engine_rows(output, sidecar)
    for name in ("file", "built with", "runs on", "batch", "plugin", "computes in", "as in the file", "layers"):
        click.echo(click.wrap_text(rows[name], 100, f"{name:<15}", " " * 15))


def _pictures(data: str | None) -> "Source":
    from proscale_deploy.runtime.bench import synthetic_frames
    from proscale_deploy.runtime.streams.source import Frame, Source, open_source

    class MadeUp(Source):
        def __iter__(self) -> "Iterator[Frame]":
            for index, image in enumerate(synthetic_frames(_MADE_UP_SIZE, _MADE_UP)):
                yield Frame(image, f"made up {index}", index, index, 0.0)

    return MadeUp((), _MADE_UP, None) if data is None else open_source(data)


def _verify(model: Path, engine: Path, pictures: "Source", *, real: bool) -> None:
    """Compare the engine with the file it is from, or say why not.

    Raises:
        VerificationFailed: they differ by more than they may.
        DeviceError: the engine was opened, and does not run.
    """
    from proscale_deploy.core.gpu import default_gpu
    from proscale_deploy.export.verify import limits_for
    from proscale_deploy.runtime.session import open_session

    if default_gpu() is None:
        _say_not_verified("no GPU here can run it")
        return
    try:
        session = open_session(engine)
    except (DeviceError, EngineMismatch, MissingDependency, PluginError) as error:
        _say_not_verified(str(error))
        return
    try:
        with session, open_session(model) as truth:
            click.echo(f"\ncomparing it on {session.name} with {model} on {truth.name}")
            # Little is found in made-up pictures, and by chance: only the outputs are judged.
            tasks = truth.manifest.thresholds.tasks if real else ()
            result, _ = compare(truth, session, pictures, _MOST, tasks)
            precision, limits = limits_for(truth.manifest, session.manifest)
    except MissingDependency as error:
        _say_not_verified(str(error))
        return
    checks = result.checks(limits)
    print_result(result, checks)
    command = shlex.join(["proscale-deploy", "verify", str(model), str(engine), "--data", "PICTURES"])
    what = f"{engine} was built, and differs from {model} by more than {precision} should"
    refuse_exceeded(checks, what, f"do not use it; where it differs: {command}")
    said = f"verified on {len(result.frames)} pictures" if real else f"outputs verified on made-up pictures; {command}"
    click.secho(said, fg="green")


def _say_not_verified(reason: str) -> None:
    click.secho(f"NOT VERIFIED: {reason}. Compare its results with those of the ONNX file before it ships.", fg="red")


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """A spinner with the elapsed time on a terminal, else a line now and then; both on the error stream."""
    started = time.monotonic()
    terminal = sys.stderr.isatty()
    shown, last = 0, -float(_SECONDS_BETWEEN_LINES)

    def tell(doing: str) -> None:
        nonlocal shown, last
        elapsed = time.monotonic() - started
        if terminal:
            frame = _FRAMES[shown % len(_FRAMES)]
            click.echo(f"\r\033[K{frame} {elapsed:4.0f} s  {doing}", err=True, nl=False)
            shown += 1
        elif elapsed - last >= _SECONDS_BETWEEN_LINES:
            click.echo(f"{elapsed:4.0f} s  {doing}", err=True)
            last = elapsed

    try:
        yield tell
    finally:
        if shown:
            click.echo("\r\033[K", err=True, nl=False)
