"""``doctor``: what this machine has, and what to install for what."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from proscale_deploy.core.machine import Package

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
    "Save COCO results": {"pycocotools": "[coco]"},
    "Run on NVIDIA GPUs with TensorRT (not used by this version yet)": {
        "tensorrt": "[tensorrt]",
        "pycuda.driver": "[tensorrt]",
    },
    "Run on RTX GPUs with TensorRT-RTX (not used by this version yet)": {"tensorrt_rtx": "[rtx]"},
    "Quantise (not used by this version yet)": {"modelopt": "[quantize]"},
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

    click.echo("\nGPU and build tools (not needed by this version)")
    gpus = machine.gpus()
    for gpu in gpus:
        _line("ok", "GPU", gpu)
    if not gpus:
        _line("missing", "GPU", "no NVIDIA GPU or driver found; models run on the CPU")
    _found("nvcc", machine.cuda_compiler(), "CUDA toolkit, to compile the plugin: https://developer.nvidia.com/cuda")
    _found(
        "NvInfer.h",
        machine.tensorrt_headers(),
        "TensorRT headers, to compile the plugin: apt install libnvinfer-headers-dev, or set TENSORRT_ROOT",
    )
    _found("plugin", _plugin(), "no compiled plugin library; models run without it")


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


def _found(name: str, value: str | None, otherwise: str) -> None:
    _line("ok" if value else "missing", name, value or otherwise)


def _line(state: str, name: str, text: str) -> None:
    click.echo(f"  {click.style(f'{state:<9}', fg='green' if state == 'ok' else 'yellow')}{name:<14}{text}")


def _plugin() -> str | None:
    import proscale_deploy

    found = [file for root in proscale_deploy.__path__ for file in Path(root, "plugins").rglob("libproscale*.so")]
    return str(found[0]) if found else None
