"""Runs a build in a child process, so that being killed for memory, or a crash in native code, becomes a sentence."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from proscale_deploy.core import errors
from proscale_deploy.core.errors import BuildError, DeployError
from proscale_deploy.export.build_request import BuildRequest, BuildResult

__all__ = ["available_memory", "check_memory", "run_build"]

_CHILD: Final = "proscale_deploy.export.build_child"
_TICK: Final = 0.2
"""Seconds between two reports while nothing happens."""
_GRACE: Final = 5.0
"""Seconds a child has for ending after SIGTERM."""

_BASE_MEMORY: Final = 650_000_000
_MEMORY_PER_BYTE: Final = 5
"""What a build with TensorRT-RTX takes, in bytes and in multiples of the ONNX file: see BENCHMARKS.md. Builds with
TensorRT, which were not measured, will not take less."""


def run_build(request: BuildRequest, graph: IO[bytes], progress: Callable[[str], None]) -> BuildResult:
    """Build in a child process; ending this process, or Ctrl-C, ends it.

    Args:
        request: what to build.
        graph: the ONNX file as the parser is to see it, open and at its beginning; it needs no name.
        progress: called with what is being done, several times a second.

    Raises:
        DeployError: of the class the child reported; BuildError if it died.
    """
    with tempfile.TemporaryFile("w+") as said:
        memory = available_memory()
        doing = "starting"
        with _child(request, graph, said) as (child, pipe):
            for message in _messages(pipe):
                if message is None:
                    pass
                elif "done" in message:
                    return BuildResult.from_dict(message["done"])
                elif "failed" in message:
                    raise _error(*message["failed"])
                else:
                    doing = message["progress"]
                progress(doing)
            status = child.wait()
        said.seek(0)
        raise BuildError(_epitaph(status, doing, memory, said.read()))


def check_memory(onnx_bytes: int) -> None:
    """Refuse a build that this machine has no memory for.

    Args:
        onnx_bytes: size of the ONNX file.

    Raises:
        BuildError: less is free than builds of this size were seen to take.
    """
    needed, free = _BASE_MEMORY + _MEMORY_PER_BYTE * onnx_bytes, available_memory()
    if free is not None and free < needed:
        raise BuildError(
            f"building an engine from {onnx_bytes / 1e6:.0f} MB of ONNX takes about {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free: close other programs, or add swap space"
        )


def available_memory() -> int | None:
    """Bytes that may still be taken, swap space included, in this container if it is one; None where unknown."""
    amounts = [amount for amount in (_machine_memory(), _container_memory()) if amount is not None]
    return min(amounts, default=None)


def _machine_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
        return 1024 * (kilobytes["MemAvailable"] + kilobytes["SwapFree"])
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _container_memory() -> int | None:
    """Of a container's control group, version 2. It counts the page cache as used, of which it gives back a part."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return limit - used + int(facts["inactive_file"])
    except (OSError, KeyError, ValueError):  # no such group, or no limit: "max"
        return None


@contextmanager
def _child(request: BuildRequest, graph: IO[bytes], said: IO[str]) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A running child and the reading end of its pipe; it has ended when the block has."""
    reading, writing = os.pipe()
    # What is importable here is importable there. The session of its own keeps Ctrl-C from it: we end it.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    command = [sys.executable, "-m", _CHILD, request.to_json(), str(writing)]
    try:
        child = subprocess.Popen(
            command,
            stdin=graph,
            stdout=said,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            env=environment,
            start_new_session=True,
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        yield child, reading
    finally:
        os.close(reading)
        child.terminate()
        try:
            child.wait(_GRACE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _messages(pipe: int) -> Iterator[dict[str, Any] | None]:
    """Messages as they come, None whenever none came for a while; ends with the child."""
    pending = b""
    while True:
        if not select.select([pipe], [], [], _TICK)[0]:
            yield None
            continue
        received = os.read(pipe, 1 << 16)
        if not received:
            return
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _error(kind: str, message: str) -> DeployError:
    cls: type[DeployError] = getattr(errors, kind)
    error = cls.__new__(cls)
    error.args = (message,)  # MissingDependency makes its message of other arguments
    return error


def _epitaph(status: int, doing: str, memory: int | None, said: str) -> str:
    """Why a child ended that reported nothing."""
    last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
    words = f"; its last words: {last}" if last else ""
    if status == -signal.SIGKILL:
        free = f", {memory / 1e9:.1f} GB were free" if memory is not None else ""
        return (
            f"the build was killed while {doing}, as the system does when memory runs out{free}: close other "
            "programs, add swap space, or take a smaller --batch or input size"
        )
    if status < 0:
        return (
            f"TensorRT crashed while {doing} ({signal.Signals(-status).name}){words}; try --optimization-level 2, "
            "--no-plugin, or another version of TensorRT"
        )
    return f"the build ended while {doing} with exit status {status}{words}"
