"""What this machine is and has, found without optional packages."""

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "HEADERS_IN_ROOT",
    "HEADER_FOLDERS",
    "Package",
    "Tool",
    "cmake",
    "cpu_name",
    "cpus",
    "cuda_compiler",
    "cxx_compiler",
    "gpus",
    "jetson",
    "output_of",
    "package",
    "tensorrt_headers",
    "tensorrt_headers_in",
    "versions",
]

HEADER_FOLDERS = (
    "/usr/include/x86_64-linux-gnu",
    "/usr/include/aarch64-linux-gnu",
    "/usr/include",
    "/usr/local/include",
    "/usr/local/tensorrt/include",
    "/opt/tensorrt/include",
    "/usr/src/tensorrt/include",
)
"""Where TensorRT's headers are looked for: Debian and JetPack packages, NVIDIA's containers, an unpacked SDK.
plugins/cmake/TensorRtHeaders.cmake has the same lists."""

HEADERS_IN_ROOT = ("include", ".", "include/x86_64-linux-gnu", "include/aarch64-linux-gnu")

UNKNOWN = "of unknown version"


@dataclass(frozen=True)
class Package:
    """A Python package as found here."""

    module: str
    version: str | None
    """None: not installed, or it does not load."""
    error: str | None = None
    """Why an installed package does not load."""


@dataclass(frozen=True)
class Tool:
    """A program, or a folder of headers."""

    path: Path
    version: str

    def __str__(self) -> str:
        return f"{self.version} ({self.path})"


def package(module: str) -> Package:
    """Import a module and say which version it is; an import that fails for whatever reason is part of the answer."""
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module.partition(".")[0]:
            return Package(module, None)
        return Package(module, None, str(error))
    except Exception as error:  # a broken native library can raise anything
        return Package(module, None, next(iter(str(error).splitlines()), type(error).__name__))
    version = getattr(imported, "__version__", None) or _distribution_version(module) or UNKNOWN
    return Package(module, str(version).removeprefix("v"))


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Versions of those modules that are installed; imports them."""
    found = ((module, package(module).version) for module in modules)
    return {module: version for module, version in found if version is not None}


def _distribution_version(module: str) -> str | None:
    for name in importlib.metadata.packages_distributions().get(module.partition(".")[0], []):
        return importlib.metadata.version(name)
    return None


def cpu_name() -> str:
    """As the kernel names it, or the architecture where it does not."""
    text = _read("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return match[1] if match else jetson() or platform.processor() or platform.machine()


def cpus() -> int:
    """Those this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jetson() -> str | None:
    """The board's name, if this is a Jetson."""
    model = _read("/proc/device-tree/model").strip("\0\n ")
    return model if "jetson" in model.lower() or Path("/etc/nv_tegra_release").exists() else None


def gpus() -> list[str]:
    """One line per NVIDIA GPU; empty if none is usable."""
    if board := jetson():
        return [f"{board} (integrated)"]
    listing = output_of(
        "nvidia-smi", "--query-gpu=name,compute_cap,driver_version,memory.total", "--format=csv,noheader"
    )
    if listing:
        return [line.strip() for line in listing.splitlines() if line.strip()]
    match = re.search(r"^NVRM version:.*?(\d+\.\d[\d.]*)", _read("/proc/driver/nvidia/version"), re.M)
    return [f"NVIDIA GPU (driver {match[1]}; nvidia-smi is not here)"] if match else []


def cmake() -> Tool | None:
    """Of PATH, or the one that pip installed beside this Python."""
    return _tool(shutil.which("cmake") or shutil.which("cmake", path=sysconfig.get_path("scripts")), r"version (\S+)")


def cxx_compiler() -> Tool | None:
    return _tool(shutil.which(os.environ.get("CXX", "c++")), r"(\d+\.\d+\.\d+)")


def cuda_compiler() -> Tool | None:
    """nvcc, where CMake finds it too: CUDACXX, CUDA_HOME, PATH, the toolkit's usual folder."""
    folders = [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    if home := os.environ.get("CUDA_HOME"):
        folders.insert(0, f"{home}/bin")
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc", path=os.pathsep.join(folders))
    return _tool(nvcc, r"release (\S+),")


def tensorrt_headers() -> Tool | None:
    """The folder of NvInfer.h: in TENSORRT_ROOT if that is set, else in one of the usual places."""
    root = os.environ.get("TENSORRT_ROOT")
    return tensorrt_headers_in(root) if root else _headers(map(Path, HEADER_FOLDERS))


def tensorrt_headers_in(root: str | Path) -> Tool | None:
    """The folder of NvInfer.h in an unpacked SDK; it may be the folder of the headers itself."""
    return _headers(Path(root, folder) for folder in HEADERS_IN_ROOT)


def _headers(folders: Iterable[Path]) -> Tool | None:
    folder = next((folder for folder in folders if (folder / "NvInfer.h").is_file()), None)
    if folder is None:
        return None
    text = _read(str(folder / "NvInferVersion.h"))
    # NV_TENSORRT_MAJOR is a number in older versions, and TRT_MAJOR_ENTERPRISE, a number, in newer ones.
    found = [re.search(rf"#define (?:NV_TENSORRT|TRT)_{part}\w*\s+(\d+)", text) for part in ("MAJOR", "MINOR")]
    return Tool(folder, ".".join(match[1] for match in found if match) or UNKNOWN)


def _tool(path: str | None, pattern: str) -> Tool | None:
    if path is None:
        return None
    match = re.search(pattern, output_of(path, "--version"))
    return Tool(Path(path), match[1] if match else UNKNOWN)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def output_of(*command: str) -> str:
    """What a command prints; nothing if it is missing, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
