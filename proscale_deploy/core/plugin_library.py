"""Where the compiled libraries are, and what is known of them: agreed here between who builds and who loads.

They lie in the Python environment that uses them, ``lib/proscale-deploy`` of a virtual environment or of the system's
prefix: environments do not disturb each other, and a container image holds what was built into it, whatever HOME is
mounted. (The package's own folder would be emptied of them by the next installation.) Where the environment may not be
written, the user's own folder takes its place, as with pip. A plugin stands in a folder named after the TensorRT it was
compiled for, because a TensorRT loads what was compiled for it or for an older one of the same major number::

    lib/proscale-deploy/libproscale_host.so                  .json beside each
    lib/proscale-deploy/tensorrt-10.13/libproscale_plugin.so
"""

import dataclasses
import hashlib
import json
import os
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from proscale_deploy.core.errors import PluginError
from proscale_deploy.core.files import replacing

__all__ = [
    "HOST",
    "OVERRIDE",
    "PLUGIN",
    "LibraryFacts",
    "facts_file",
    "find_host",
    "find_plugin",
    "homes",
    "plugins",
    "problem",
    "read_facts",
    "sha256",
    "write_facts",
]

PLUGIN = "libproscale_plugin.so"
HOST = "libproscale_host.so"

OVERRIDE = "PROSCALE_PLUGIN"
"""Environment variable: the plugin library to take, or a folder that holds the libraries; nothing else is looked at."""


_AGAIN = "proscale-deploy plugin build makes it anew"


@dataclass(frozen=True)
class LibraryFacts:
    """What stands in the JSON file beside a library."""

    version: str
    """Of the project."""
    sha256: str
    built: str
    """UTC, ISO 8601."""
    compiler: str
    cuda: str | None = None
    """None in the host library, like those below."""
    tensorrt: str | None = None
    """Of the headers."""
    architectures: tuple[str, ...] = ()
    """In CMake's notation: "90-real" is machine code, "90-virtual" PTX, "90" both."""


def homes() -> list[Path]:
    """Folders that may hold libraries, the first first: the environment's, then the user's."""
    bases = (sysconfig.get_path("data"), sysconfig.get_path("data", sysconfig.get_preferred_scheme("user")))
    return [Path(base, "lib", "proscale-deploy") for base in dict.fromkeys(bases)]


def plugins() -> list[Path]:
    """All plugin libraries here, the first first.

    Raises:
        PluginError: OVERRIDE is set to what is not there.
    """
    if given := _override():
        path = given / PLUGIN if given.is_dir() else given
        return [path] if path.is_file() and path.name != HOST else []
    return [path for home in homes() for path in sorted(home.glob(f"tensorrt-*/{PLUGIN}"))]


def find_plugin(tensorrt: str) -> Path:
    """The library for a TensorRT: of those compiled for its major number and not for a newer minor one, the newest.

    Args:
        tensorrt: version of the installed library, for instance ``"10.13.3.9"``.

    Raises:
        PluginError: there is none.
    """
    found = plugins()
    if given := os.environ.get(OVERRIDE):
        if not found:
            raise PluginError(f"no plugin library at {given}, which {OVERRIDE} names: correct or unset the variable")
        return found[0]  # on the user's own responsibility
    installed = _numbers(tensorrt)
    fitting = [path for path in found if _numbers(path.parent.name)[:1] == installed[:1]]
    fitting = [path for path in fitting if _numbers(path.parent.name) <= installed]
    if not fitting:
        others = f"; those here are compiled for {', '.join(path.parent.name for path in found)}" if found else ""
        raise PluginError(
            f"no plugin library for TensorRT {tensorrt} in {' or '.join(map(str, homes()))}{others}: "
            f"type proscale-deploy plugin build, or set {OVERRIDE} to a library"
        )
    return max(fitting, key=lambda path: _numbers(path.parent.name))


def _override() -> Path | None:
    """What OVERRIDE names. A folder without libraries is no mistake: it switches those of the environment off."""
    given = os.environ.get(OVERRIDE)
    if given and not Path(given).exists():
        raise PluginError(f"no plugin library at {given}, which {OVERRIDE} names: correct or unset the variable")
    return Path(given) if given else None


def find_host() -> Path | None:
    """The host library, if there is one.

    Raises:
        PluginError: OVERRIDE is set to what is not there.
    """
    given = _override()
    folders = [given if given.is_dir() else given.parent] if given else homes()
    return next((folder / HOST for folder in folders if (folder / HOST).is_file()), None)


def problem(library: Path) -> str | None:
    """Why a library cannot be used and what to do, or nothing. Loads it."""
    from proscale_deploy.core.native import Library  # needs numpy, which is not needed to look around

    try:
        facts = read_facts(library)
        if facts and facts.sha256 != sha256(library):
            return f"it was changed after it was built (sha256 is not that of {facts_file(library).name}): {_AGAIN}"
        if not Library(library).is_plugin and library.name != HOST:
            return f"it holds the kernels alone, compiled without TensorRT's headers, and no plugin: {_AGAIN}"
    except PluginError as error:
        return str(error)
    return None


def facts_file(library: Path) -> Path:
    return library.with_name(f"{library.name}.json")


def read_facts(library: Path) -> LibraryFacts | None:
    """What stands beside a library; nothing if it stands alone, as one that CMake installed does.

    Raises:
        PluginError: the file cannot be understood.
    """
    file = facts_file(library)
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        return LibraryFacts(**{**read, "architectures": tuple(read["architectures"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise PluginError(f"{file} cannot be read ({error}): {_AGAIN}") from error


def write_facts(library: Path, facts: LibraryFacts) -> None:
    with replacing(facts_file(library)) as file:
        file.write_text(json.dumps(dataclasses.asdict(facts), indent=2) + "\n", encoding="utf-8")


def sha256(library: Path) -> str:
    return hashlib.sha256(library.read_bytes()).hexdigest()


def _numbers(version: str) -> tuple[int, ...]:
    """(major, minor) in any text that holds a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
