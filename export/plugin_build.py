"""Compiles plugins/ and puts the libraries where they are found; see core/plugin_library.py for the place and why."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import proscale_deploy
from proscale_deploy.core import machine, plugin_library
from proscale_deploy.core.errors import PluginError
from proscale_deploy.core.files import replacing
from proscale_deploy.core.gpu import gpus
from proscale_deploy.core.plugin_library import HOST, PLUGIN, LibraryFacts, sha256, write_facts
from proscale_deploy.export.tensorrt_headers import headers_folder

__all__ = ["build_host", "build_plugin"]

Progress = Callable[[str], None]

_LINES = 20
"""Of a failed compilation that are shown."""


def build_plugin(
    headers: str | None, architectures: Sequence[str] | None, output: Path | None, progress: Progress
) -> list[Path]:
    """Compile the plugin library and the host library.

    Args:
        headers: see :func:`~proscale_deploy.export.tensorrt_headers.headers_folder`.
        architectures: ``["87", "90a"]``; empty for all that nvcc knows of those the project supports; None for those of
            the GPUs in this machine, and all where there are none.
        output: the folder to put the libraries in; None for the place where they are found.
        progress: is told what is being done.

    Raises:
        PluginError: a tool or the headers are missing, or the compilation failed.
    """
    nvcc = machine.cuda_compiler()
    if nvcc is None:
        raise PluginError(
            "nvcc was not found in PATH, CUDACXX, CUDA_HOME or /usr/local/cuda/bin: install the CUDA toolkit "
            "(https://developer.nvidia.com/cuda-downloads); for the CPU's library alone: proscale-deploy plugin build "
            "--host-only"
        )
    with tempfile.TemporaryDirectory(prefix="proscale-plugin-") as scratch:
        chosen = _of_this_machine(nvcc) if architectures is None else _known(architectures, nvcc)
        root = headers_folder(headers, _folder(scratch, "headers"))
        options = [f"-DTENSORRT_ROOT={root}", f"-DCMAKE_CUDA_COMPILER={nvcc.path}", "-DPROSCALE_CUDA=ON"]
        if chosen:
            options.append(f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(f'{name}-real' for name in chosen)}")
        build = _compile(_folder(scratch, "build"), options, progress)
        return [_put(build / HOST, output), _put(build / PLUGIN, output)]


def build_host(output: Path | None, progress: Progress) -> Path:
    """Compile the host library alone: as :func:`build_plugin`, without nvcc and headers."""
    with tempfile.TemporaryDirectory(prefix="proscale-plugin-") as scratch:
        return _put(_compile(Path(scratch), ["-DPROSCALE_CUDA=OFF"], progress) / HOST, output)


def _folder(scratch: str, name: str) -> Path:
    folder = Path(scratch, name)
    folder.mkdir()
    return folder


def _of_this_machine(nvcc: machine.Tool) -> list[str]:
    """Architectures of the GPUs here; none if nvcc does not know one of them, whose driver then compiles PTX."""
    wanted = sorted({gpu.capability.replace(".", "") for gpu in gpus()}, key=int)
    return wanted if set(wanted) <= set(_listed(nvcc)) else []


def _known(architectures: Sequence[str], nvcc: machine.Tool) -> Sequence[str]:
    """``architectures``, of which nvcc knows each; it lists none of their variants (90a, 100f).

    Raises:
        PluginError: it does not know one.
    """
    listed = _listed(nvcc)
    unknown = [name for name in architectures if name.rstrip("af") not in listed]
    if unknown and listed:
        raise PluginError(
            f"nvcc {nvcc} does not know the compute capability {', '.join(unknown)}; it knows {', '.join(listed)}: "
            "pass some of these to --arch, or install a CUDA toolkit that knows it"
        )
    return architectures


def _listed(nvcc: machine.Tool) -> list[str]:
    """Compute capabilities that it makes machine code for: "75", "80", ...; none if it does not say."""
    said = subprocess.run([nvcc.path, "--list-gpu-code"], capture_output=True, text=True).stdout
    return sorted({line.removeprefix("sm_") for line in said.split()}, key=lambda name: (len(name), name))


def _compile(build: Path, options: Sequence[str], progress: Progress) -> Path:
    cmake = machine.cmake()
    if cmake is None:
        raise PluginError("cmake is not installed: pip install cmake, or apt install cmake")
    if machine.cxx_compiler() is None:
        raise PluginError("no C++ compiler was found in CXX and PATH: apt install g++ make")
    configure = [f"-DPROSCALE_VERSION={proscale_deploy.__version__}", *options]
    _run([cmake.path, "-S", _sources(), "-B", build, *configure], lambda line: _configured(line, progress))
    _run([cmake.path, "--build", build, "--parallel", str(machine.cpus())], lambda line: _building(line, progress))
    return build


def _sources() -> Path:
    """plugins/: inside an installed package, beside it in a checkout."""
    for root in proscale_deploy.__path__:
        if Path(root, "plugins", "CMakeLists.txt").is_file():
            return Path(root, "plugins")
    raise PluginError("the plugin's sources are not in this installation: install proscale-deploy again")


def _configured(line: str, progress: Progress) -> None:
    if match := re.match(r"-- ((?:CUDA|TensorRT) \d.*)", line):
        progress(match[1])


def _building(line: str, progress: Progress) -> None:
    if match := re.search(r"Building (?:CXX|CUDA) object .*?\.dir/(.+)\.o$", line):
        progress(f"compiling {match[1]}")


def _run(command: Sequence[str | Path], tell: Callable[[str], None]) -> None:
    """Run to the end, giving each line to ``tell``.

    Raises:
        PluginError: it failed; with the compiler's words from the first error on, or the last ones.
    """
    lines = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line.rstrip())
                tell(lines[-1])
        except BaseException:  # stopped: the compilers below are not to go on alone
            os.killpg(process.pid, signal.SIGTERM)
            raise
    if process.returncode:
        first = next((i for i, line in enumerate(lines) if re.search(r"\berror\b", line, re.I)), len(lines) - _LINES)
        shown = lines[max(first, 0) :][:_LINES]
        raise PluginError("the plugin could not be compiled:\n  " + "\n  ".join(shown))


def _put(library: Path, output: Path | None) -> Path:
    """Into its place, complete or not at all, with its facts beside it."""
    known = json.loads(library.with_suffix(".json").read_text(encoding="utf-8"))  # written by plugins/CMakeLists.txt
    known["architectures"] = tuple(known["architectures"])
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    facts = LibraryFacts(sha256=sha256(library), built=now, **known)
    place = (output or _home_for(facts)) / library.name
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as temporary:
        shutil.copy(library, temporary)
    write_facts(place, facts)
    return place


def _home_for(facts: LibraryFacts) -> Path:
    below = f"tensorrt-{'.'.join(facts.tensorrt.split('.')[:2])}" if facts.tensorrt else "."
    homes = plugin_library.homes()
    for home in homes:
        try:
            (home / below).mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(home / below, os.W_OK):
            return home / below
    raise PluginError(f"neither {' nor '.join(map(str, homes))} can be written: pass --output DIR")
