"""``build`` from the command line, and ``inspect`` of what it leaves."""

import dataclasses
import importlib.util
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proscale_deploy import cli
from proscale_deploy.core import gpu
from proscale_deploy.core.gpu import Gpu
from proscale_deploy.core.sidecar import file_sha256, write_sidecar
from proscale_deploy.export import build_process, engine
from proscale_deploy.export.build_request import BuildResult
from proscale_deploy.runtime import write_image
from proscale_deploy.runtime.gpu import engine_session
from support.color_model import picture, write_color_model
from support.engine_model import write_engine_model
from support.fake_gpu import GPU, FakeGpu
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
        "computes in 100 % FP16 (2) of layers with convolutions and matrix products, on all targets as on the oldest, "
        "8.6; in the ONNX file 100 % FP16 (2) of nodes",
        "as in the file 2 of 2 FP16 nodes (100 %, at least 90 %)",
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
        "as in the file 32 of 32 FP16 nodes (100 %, at least 90 %), 1 of 1 FP32 nodes (100 %)",
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
def test_what_keeps_an_engine_from_being_verified_is_said(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The targets leave the GPU out that is here."""
    for module in (gpu, engine_session):
        monkeypatch.setattr(module, "default_gpu", lambda: Gpu("RTX 4090", "8.9", 24 << 30))
    arguments = ("--backend", "tensorrt-rtx", "--target", "sm_86")
    assert run("build", model, "--output", model.with_suffix(".engine"), *arguments) == 0
    assert "NOT VERIFIED: " in (said := capsys.readouterr().out)
    assert "built for 8.6, this GPU has compute capability 8.9; build it again here: " in said


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    """Of which the child process that builds is told too."""

    def run_build(*arguments: Any) -> BuildResult:
        return dataclasses.replace(build_process.run_build(*arguments), gpu=GPU.name, compute_capability=GPU.capability)

    monkeypatch.setattr(engine, "run_build", run_build)
    return FakeGpu(tmp_path, monkeypatch)


BUILD = ("--backend", "tensorrt", "--no-plugin", "--batch", "2")


def test_the_engine_is_verified(fake: FakeGpu, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_color_model(tmp_path / "m.onnx")
    assert run("build", model, "--output", tmp_path / "m.engine", *BUILD) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"comparing it on TensorRT 10.3.0, Orin with {model} on ONNX Runtime CPU" in said
    assert "class_logits 0 0.0001 kept" in said
    assert " pq " not in said
    assert (
        f"outputs verified on made-up pictures; proscale-deploy verify {model} {tmp_path / 'm.engine'} --data" in said
    )
    assert "NOT VERIFIED" not in said

    write_image(tmp_path / "picture.png", picture())
    arguments = (*BUILD, "--data", tmp_path / "picture.png")
    assert run("build", model, "--output", tmp_path / "m.engine", *arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "pq 100 99.5 kept" in said
    assert "verified on 1 pictures" in said


def test_an_engine_that_is_wrong_is_refused(fake: FakeGpu, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_color_model(tmp_path / "m.onnx")
    fake.mood(tensorrt="computes rubbish")
    assert run("build", model, "--output", tmp_path / "m.engine", *BUILD) == 1
    error = capsys.readouterr().err
    assert f"m.engine was built, and differs from {model} by more than fp32 should: " in error
    assert "mask_logits" in error
    assert f"do not use it; where it differs: proscale-deploy verify {model}" in error


def test_pictures_are_looked_for_before_the_build(
    fake: FakeGpu, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_color_model(tmp_path / "m.onnx")
    assert run("build", model, "--output", tmp_path / "m.engine", *BUILD, "--data", tmp_path / "none") == 1
    assert fake.calls("build") == []


def test_other_verbs_take_the_engine(fake: FakeGpu, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_color_model(tmp_path / "m.onnx")
    built = fake.engine(model)
    write_image(tmp_path / "picture.png", picture())
    report = tmp_path / "v.html"
    assert run("verify", model, built, "--data", tmp_path / "picture.png", "--output", report) == 0
    assert run("predict", built, tmp_path / "picture.png", "--output", tmp_path / "seen.png") == 0
    assert run("bench", built, "--runs", "2", "--source", tmp_path / "picture.png") == 0
    assert capsys.readouterr().out.count("TensorRT 10.3.0, Orin") == 3


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
