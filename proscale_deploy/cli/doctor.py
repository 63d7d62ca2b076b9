"""``doctor``: what this machine has, and what to install for what."""

import os
import sys
from typing import TYPE_CHECKING

import click

from proscale_deploy.core.errors import PluginError

if TYPE_CHECKING:
    from proscale_deploy.core.machine import Package, Tool

_PACKAGES = {
    "Run models (always needed)": {"numpy": "numpy", "cv2": "opencv-python", "PIL": "Pillow"},
    "Run on this machine's CPU": {"onnxruntime": "[cpu]", "onnx": "[cpu]"},
    "Export checkpoints": {
        "torch": "[export]",
        "onnx": "[export]",
        "onnxsim": "[export]",
        "yaml": "[export]",
        "safetensors": "[export]",
    },
    "Save COCO results, verify, evaluate": {"pycocotools": "[coco]"},
    "Build TensorRT engines, on the GPU they are for": {"tensorrt": "[tensorrt]"},
    "Build TensorRT-RTX engines, without a GPU": {"tensorrt_rtx": "[rtx-build]"},
    "Run engines, together with what built them": {"pycuda.driver": "pycuda"},
}
"""Module -> what to give pip; in brackets an extra of this project."""


@click.command()
def doctor() -> None:
    """Show what this machine has, and what to install for what."""
    from proscale_deploy import __version__
    from proscale_deploy.core import machine

    python = ".".join(map(str, sys.version_info[:3]))
    click.echo(f"proscale-deploy {__version__}, Python {python} ({sys.executable})")
    click.echo(f"{machine.cpu_name()}, {machine.cpus()} cores usable")
    for purpose, modules in _PACKAGES.items():
        click.echo(f"\n{purpose}")
        for module, what in modules.items():
            _print_package(machine.package(module), what)

    click.echo("\nCompile and run the TensorRT plugin")
    gpus = machine.gpus()
    for gpu in gpus:
        _line("ok", "GPU", gpu)
    if not gpus:
        _line("missing", "GPU", "no NVIDIA GPU or driver found; models run on the CPU")
    _found("cmake", machine.cmake(), "pip install cmake")
    _found("C++", machine.cxx_compiler(), "apt install g++ make")
    _found("nvcc", machine.cuda_compiler(), "CUDA toolkit: https://developer.nvidia.com/cuda-downloads")
    _found(
        "NvInfer.h",
        machine.tensorrt_headers(),
        "TensorRT headers: apt install libnvinfer-headers-dev, set TENSORRT_ROOT, or "
        "proscale-deploy plugin build --headers https://github.com/NVIDIA/TensorRT",
    )
    _print_libraries()


def _print_libraries() -> None:
    from proscale_deploy.core import plugin_library

    try:
        plugins, host = plugin_library.plugins(), plugin_library.find_host()
    except PluginError as error:
        _line("missing", "plugin", str(error))
        return
    for name, path in [*(("plugin", path) for path in plugins), *([("host library", host)] if host else [])]:
        problem = plugin_library.problem(path)
        _line("broken" if problem else "ok", name, problem or str(path))
    if not plugins:
        given = os.environ.get(plugin_library.OVERRIDE)
        reason = f"not at {given}, which {plugin_library.OVERRIDE} names; " if given else ""
        _line("missing", "plugin", f"{reason}proscale-deploy plugin build; models run without it")


def _print_package(package: "Package", what: str) -> None:
    command = f"pip install 'proscale-deploy{what}'" if what.startswith("[") else f"pip install {what}"
    name = package.module.partition(".")[0]
    if package.version:
        _line("ok", name, package.version)
    elif package.error is None:
        _line("missing", name, command)
    elif "libGL" in package.error or "libgthread" in package.error:
        # opencv-python needs X11 and OpenGL libraries; the same without windows does not, and takes its place.
        repair = "pip install --force-reinstall --no-deps opencv-python-headless"
        _line("broken", name, f"{package.error}: {repair}")
    else:
        _line("broken", name, f"{package.error}; to install it again: {command}")


def _found(name: str, tool: "Tool | None", otherwise: str) -> None:
    _line("ok" if tool else "missing", name, str(tool or otherwise))


def _line(state: str, name: str, text: str) -> None:
    click.echo(f"  {click.style(f'{state:<9}', fg='green' if state == 'ok' else 'yellow')}{name:<14}{text}")
