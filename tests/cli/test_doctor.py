"""``doctor`` tells what is there and what to type for what is not, and never fails."""

import os
import stat
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from proscale_deploy import cli
from proscale_deploy.core import machine


def doctor(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def line(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.split()[1:2] == [name])


def test_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    text = doctor(capsys)
    assert line(text, "numpy").split() == ["ok", "numpy", np.__version__]
    assert sys.executable in text


def test_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = machine.importlib.import_module

    def without(name: str) -> types.ModuleType:
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
        return real(name)

    monkeypatch.setattr(machine.importlib, "import_module", without)
    monkeypatch.setenv("PATH", "")
    text = doctor(capsys)
    assert line(text, "onnxruntime").split() == ["missing", "onnxruntime", "pip", "install", "'proscale-deploy[cpu]'"]
    assert line(text, "cv2").startswith("  broken")
    assert "opencv-python-headless" in line(text, "cv2")
    assert line(text, "GPU").startswith("  missing") or machine.gpus()


def test_gpu_and_compiler_are_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tool(name: str, output: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{output}'\n")
        (tmp_path / name).chmod(stat.S_IRWXU)

    tool("nvidia-smi", "NVIDIA L4, 8.9, 580.65.06, 23034 MiB")
    tool("nvcc", "Cuda compilation tools, release 12.6, V12.6.68")
    (tmp_path / "include").mkdir()
    (tmp_path / "include/NvInfer.h").touch()
    numbers = "#define TRT_MAJOR_ENTERPRISE 10\n#define TRT_MINOR_ENTERPRISE 13\n"
    aliases = "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n#define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE\n"
    (tmp_path / "include/NvInferVersion.h").write_text(numbers + aliases)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
    monkeypatch.setattr(machine, "jetson", lambda: None)
    text = doctor(capsys)
    assert "NVIDIA L4, 8.9" in line(text, "GPU")
    assert "12.6 (" in line(text, "nvcc")
    assert f"10.13 ({tmp_path}/include)" in line(text, "NvInfer.h")


def test_older_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "NvInfer.h").touch()
    text = "#define NV_TENSORRT_MAJOR 10 //!< TensorRT major version.\n#define NV_TENSORRT_MINOR 3  //!< minor\n"
    (tmp_path / "NvInferVersion.h").write_text(text)
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
    assert str(machine.tensorrt_headers()) == f"10.3 ({tmp_path})"


def test_a_package_that_breaks_on_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('driver too old')")
    monkeypatch.syspath_prepend(tmp_path)
    assert machine.package("broken_package") == machine.Package("broken_package", None, "driver too old")
    assert machine.package("no_such_package_here") == machine.Package("no_such_package_here", None)


def test_opencv_without_its_libraries(tmp_path: Path) -> None:
    """The usual state of a fresh server with the desktop wheel: everything else must still speak."""
    message = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({message!r})")
    for arguments, status in ((["doctor"], 0), (["predict", "m.onnx", "a.png"], 1)):
        command = [sys.executable, "-m", "proscale_deploy", *arguments]
        environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
        run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60)
        assert run.returncode == status, run.stderr
        assert "Traceback" not in run.stderr
        if status == 0:
            assert "pip install --force-reinstall --no-deps opencv-python-headless" in line(run.stdout, "cv2")
        else:
            assert run.stderr == f"error: {message}; what is installed, and what to install: proscale-deploy doctor\n"
