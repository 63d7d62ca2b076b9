"""An engine is told from one that does not belong here by its sidecar alone."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proscale_deploy.core.errors import EngineMismatch
from proscale_deploy.core.sidecar import Sidecar, read_sidecar, sidecar_path, write_sidecar
from support.sidecars import SIDECAR

HERE = {"version": "10.3.0", "compute_capability": "8.7", "plugin_sha256": "a" * 64}
RTX = replace(
    SIDECAR, backend="tensorrt-rtx", backend_version="1.7.1.116", gpu=None, compute_capability=None, plugin=None
)
ON_RTX = {"version": "1.7.1.116", "compute_capability": "8.6", "plugin_sha256": None}


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "m.engine"
    path.write_bytes(b"an engine")
    write_sidecar(path, replace(SIDECAR, engine_sha256=hashlib.sha256(b"an engine").hexdigest()))
    return path


def test_round_trip(engine: Path) -> None:
    read = read_sidecar(engine)
    assert read == replace(SIDECAR, engine_sha256=read.engine_sha256)
    assert sidecar_path(engine).name == "m.engine.json"


def test_json_is_for_people_too() -> None:
    facts = json.loads(SIDECAR.to_json())
    assert facts["plugin"]["sha256"] == "a" * 64
    assert facts["manifest"]["input"]["height"] == 64
    assert facts["precision"]["critical"] == {"FP16": 30, "FP32": 1}


def test_another_engine(engine: Path) -> None:
    engine.write_bytes(b"another engine")
    with pytest.raises(EngineMismatch, match=r"m.engine: changed since it was built, or m.engine.json is of another"):
        read_sidecar(engine)


def test_without_sidecar(engine: Path) -> None:
    sidecar_path(engine).unlink()
    with pytest.raises(EngineMismatch, match=r"m.engine.json is missing.*proscale-deploy build M.onnx --output m.eng"):
        read_sidecar(engine)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"schema": 2}, "schema 2, this version reads 1"),
        ({"backend": "tensorflow"}, "damaged .*tensorflow"),
        ({"manifest": {"schema": 1}}, "damaged"),
        ({"precision": None}, "damaged"),
        ({"more": 1}, "damaged"),
        ({"batch": 1}, "damaged"),
    ],
)
def test_damaged(change: dict[str, Any], found: str) -> None:
    text = json.dumps(json.loads(SIDECAR.to_json()) | change)
    with pytest.raises(EngineMismatch, match=rf"m.engine.json: {found}.*; build the engine again"):
        Sidecar.from_json(text, "m.engine.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "{"])
def test_no_sidecar_at_all(text: str) -> None:
    with pytest.raises(EngineMismatch, match="damaged"):
        Sidecar.from_json(text, "m.engine.json")


@pytest.mark.parametrize(
    ("sidecar", "here"),
    [
        (SIDECAR, HERE),
        (replace(SIDECAR, plugin=None), HERE | {"plugin_sha256": None}),
        (replace(SIDECAR, version_compatible=True), HERE | {"version": "10.13.3.9"}),
        (replace(SIDECAR, hardware_compatibility="ampere-plus"), HERE | {"compute_capability": "12.0"}),
        (RTX, ON_RTX),
        (replace(RTX, platform="windows-AMD64"), ON_RTX | {"compute_capability": "12.0"}),
        (replace(RTX, targets=("7.5",)), ON_RTX | {"compute_capability": "7.5"}),
    ],
)
def test_fits(sidecar: Sidecar, here: dict[str, Any]) -> None:
    sidecar.check_fits(Path("m.engine"), **here)


@pytest.mark.parametrize(
    ("sidecar", "here", "reason"),
    [
        (SIDECAR, HERE | {"version": "10.13.3.9"}, "built with tensorrt 10.3.0, installed is 10.13.3.9"),
        (replace(SIDECAR, version_compatible=True), HERE | {"version": "11.1"}, "installed is 11.1"),
        (replace(SIDECAR, version_compatible=True), HERE | {"version": "10.2.0"}, "installed is 10.2.0"),
        (SIDECAR, HERE | {"compute_capability": "8.9"}, r"built on 8.7 \(Orin\), this GPU has compute capability 8.9"),
        (
            replace(SIDECAR, hardware_compatibility="ampere-plus"),
            HERE | {"compute_capability": "7.5"},
            "this GPU has compute capability 7.5",
        ),
        (
            replace(SIDECAR, hardware_compatibility="same-compute-capability"),
            HERE | {"compute_capability": "8.9"},
            "this GPU has",
        ),
        (SIDECAR, HERE | {"plugin_sha256": "b" * 64}, "ProScaleMSDeformAttn aaaaaaaaaaaa, here is bbbbbbbbbbbb"),
        (SIDECAR, HERE | {"plugin_sha256": None}, "here is none"),
        (replace(SIDECAR, platform="linux-riscv64"), HERE, "built for linux-riscv64, this is "),
        (RTX, ON_RTX | {"compute_capability": "7.5"}, "built for 8.0 and later, this GPU has compute capability 7.5"),
        (replace(RTX, targets=("8.6", "8.9")), ON_RTX | {"compute_capability": "12.0"}, "built for 8.6, 8.9, this GPU"),
        (RTX, ON_RTX | {"version": "1.2.0.54"}, "installed is 1.2.0.54"),
    ],
)
def test_does_not_fit(sidecar: Sidecar, here: dict[str, Any], reason: str) -> None:
    with pytest.raises(EngineMismatch, match=rf"m.engine: .*{reason}.*proscale-deploy build M.onnx --output m.engine"):
        sidecar.check_fits(Path("m.engine"), **here)


def test_all_reasons_at_once() -> None:
    with pytest.raises(EngineMismatch) as caught:
        SIDECAR.check_fits(Path("m.engine"), version="11.1", compute_capability="9.0", plugin_sha256=None)
    assert str(caught.value).count(";") == 3
