"""``build`` from the command line, and ``inspect`` of what it leaves."""

import dataclasses
import importlib.util
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from proscale_deploy import cli
from proscale_deploy.core import gpu
from proscale_deploy.core.gpu import Gpu
from proscale_deploy.core.sidecar import file_sha256, write_sidecar
from support.engine_model import write_engine_model
from support.sidecars import SIDECAR

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs: pip install 'proscale-deploy[rtx-build]'"
)


def run(*arguments: object) -> object:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(map(str, arguments)))
    return caught.value.code


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_engine_model(tmp_path / "m.onnx", np.float16)


@needs_rtx
def test_build_and_inspect(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "default_gpu", lambda: None)
    engine = model.with_suffix(".engine")
    arguments = ("--output", engine, "--backend", "tensorrt-rtx", "--batch", "1,2,4", "--target", "sm_86,sm_120")
    assert run("build", model, *arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        f"file {engine}, ",
        "built with tensorrt-rtx 1.",
        "runs on compute capability 8.6, 12.0; tensorrt-rtx 1.",
        "batch 1 to 4, best 2",
        "plugin none",
        "computes in 100 % FP16 (2) of layers with convolutions and matrix products; in the ONNX file 100 % FP16 (2)",
        "NOT VERIFIED: no GPU here can run it. Compare its results with those of the ONNX file before it ships.",
    ):
        assert words in said

    assert run("inspect", engine) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (f"engine sha256 {file_sha256(engine)}", f"ONNX file sha256 {file_sha256(model)}", "precision fp16"):
        assert words in said
    assert run("inspect", engine, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["targets"] == ["8.6", "12.0"]
    assert facts["manifest"]["precision"] == "fp16"
    assert facts["precision"]["critical"] == {"FP16": 2}


def test_inspect_shows_the_types_of_an_onnx_file(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", model) == 0
    assert "computes in    100 % FP16 (2) of convolutions and matrix products" in capsys.readouterr().out


def test_inspect_shows_an_engine_that_cannot_run_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"an engine")
    write_sidecar(engine, dataclasses.replace(SIDECAR, engine_sha256=file_sha256(engine)))
    assert run("inspect", engine) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "built with tensorrt 10.3.0 on Orin, linux",
        "in 412.5 s; optimization level 3, workspace 1024 MiB",
        "runs on compute capability 8.7; tensorrt 10.3.0",
        f"plugin ProScaleMSDeformAttn 1, sha256 {'a' * 64}",
        "computes in 97 % FP16 (30), 3 % FP32 (1) of layers with convolutions and matrix products; in the ONNX file "
        "97 % FP16 (33), 3 % FP32 (1) of nodes",
        "layers 90 % FP16 (90), 10 % FP32 (10), by the engine inspector",
    ):
        assert words in said


def test_inspect_of_an_engine_without_sidecar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.engine").write_bytes(b"an engine")
    assert run("inspect", tmp_path / "m.engine") == 1
    assert "m.engine.json is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch", "4,2,1"), "'4,2,1' does not rise from 1 or more; for instance 1,4,8"),
        (("--batch", "1,2"), "'1,2' is neither a number nor three; for instance 1 or 1,4,8"),
        (("--batch", "0"), "'0' does not rise from 1"),
        (("--target", "8.6"), "'8.6' is not a list of GPU architectures; for instance sm_86,sm_89,sm_120"),
        (("--workspace", "0"), "0 is not in the range x>=1"),
        (("--optimization-level", "6"), "6 is not in the range 0<=x<=5"),
        (("--backend", "tensort"), "'tensort' is not one of 'tensorrt', 'tensorrt-rtx'"),
    ],
)
def test_wrong_usage(model: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], message: str) -> None:
    backend = () if "--backend" in arguments else ("--backend", "tensorrt-rtx")
    assert run("build", model, "--output", model.with_suffix(".engine"), *backend, *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backend", "tensorrt", "--target", "sm_86"), "targets are for tensorrt-rtx"),
        (("--backend", "tensorrt", "--version-compatible"), "build it without (--no-plugin)"),
        (("--backend", "tensorrt-rtx", "--hardware-compatibility", "ampere-plus"), "has no compatibility modes"),
    ],
)
def test_options_that_do_not_go_together(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert run("build", model, "--output", model.with_suffix(".engine"), *arguments) == 1
    assert message in capsys.readouterr().err


def test_output_of_another_kind(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("build", model, "--output", model.with_suffix(".plan"), "--backend", "tensorrt") == 1
    assert f"build writes engines; type --output {model.with_suffix('.engine')}" in capsys.readouterr().err


@needs_rtx
def test_engines_on_a_machine_with_a_gpu_are_not_verified_either(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "default_gpu", lambda: Gpu("RTX 4090", "8.9", 24 << 30))
    assert run("build", model, "--output", model.with_suffix(".engine"), "--backend", "tensorrt-rtx") == 0
    assert "NOT VERIFIED: tensorrt-rtx engines cannot be run by this version" in capsys.readouterr().out


@needs_rtx
def test_a_terminal_shows_what_is_being_done(model: Path) -> None:
    """On one line that is gone in the end."""
    code = "import sys; from proscale_deploy import cli; cli.main(sys.argv[1:])"
    arguments = ["build", str(model), "--output", str(model.with_suffix(".engine")), "--backend", "tensorrt-rtx"]
    ours, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while received := os.read(ours, 1 << 16):
            shown += received
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(ours)
    assert child.wait() == 0
    assert b" s  parsing" in shown
    assert shown.count(b"\n") == 0
    assert shown.endswith(b"\r\x1b[K")
