"""The TensorRT plugin without a GPU: driven by a C++ program, and loaded by TensorRT-RTX's registry."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proscale_deploy.core import machine
from proscale_deploy.core.operator import OP_TYPE, VERSION

ROOT = Path(__file__).parents[2]
SOURCES = ("deform_attn_plugin.cpp", "deform_attn_creator.cpp", "registration.cpp")


def _headers() -> list[machine.Tool]:
    """TensorRT's headers on this machine, every version."""
    roots = sorted(Path("/usr/local").glob("tensorrt*"))
    found = [machine.tensorrt_headers(), *map(machine.tensorrt_headers_in, roots)]
    return list({tool.version: tool for tool in found if tool}.values())


def _cuda_headers() -> Path | None:
    nvcc = machine.cuda_compiler()
    roots = [nvcc.path.resolve().parents[1]] if nvcc else []
    folders = [root / "include" for root in (*roots, Path("/usr/local/cuda"))]
    return next((folder for folder in folders if (folder / "cuda_runtime_api.h").is_file()), None)


@pytest.mark.parametrize("headers", _headers() or [None], ids=str)
def test_methods_of_the_plugin(headers: machine.Tool | None, tmp_path: Path) -> None:
    """tests/plugins/tensorrt, compiled for one version of TensorRT with a launcher that records its arguments."""
    compiler, cuda = machine.cxx_compiler(), _cuda_headers()
    if headers is None:
        pytest.skip("needs TensorRT's headers: apt install libnvinfer-headers-dev, or set TENSORRT_ROOT")
    if compiler is None or cuda is None:
        pytest.skip("needs a C++ compiler and the headers of the CUDA toolkit")
    program = tmp_path / "plugin_test"
    sources = [ROOT / "plugins" / "src" / name for name in SOURCES]
    sources += sorted((ROOT / "tests" / "plugins" / "tensorrt").glob("*.cpp"))
    compiled = subprocess.run(
        [
            *(compiler.path, "-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"),
            *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
            *("-I", ROOT / "plugins" / "include", "-I", ROOT / "plugins" / "src"),
            *("-isystem", cuda, "-isystem", headers.path),
            *(*sources, "-o", program),
        ],
        capture_output=True,
        text=True,
    )
    assert compiled.returncode == 0, compiled.stderr

    run = subprocess.run([program], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.fullmatch(r"TensorRT \d+\.\d+: \d{4,} checks, 0 failed\n", run.stdout)


@pytest.fixture(scope="module")
def registry(plugin_library: Path) -> dict[str, Any]:
    """What support/plugin_registry.py says of the library."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx: pip install tensorrt_rtx")
    run = subprocess.run(
        [sys.executable, "-m", "support.plugin_registry", str(plugin_library)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return {**result, "stderr": run.stderr}


def test_library_registers_one_creator(registry: dict[str, Any]) -> None:
    assert registry["added"] == [OP_TYPE]
    assert registry["fields"] == ["heads", "points", "levels"]
    assert registry["left"] == []


@pytest.mark.parametrize("phase", ["BUILD", "RUNTIME"])
@pytest.mark.parametrize("case", ["int32", "int64"])
def test_good_fields(registry: dict[str, Any], case: str, phase: str) -> None:
    result = registry["cases"][f"{case} {phase}"]
    assert result["created"]
    assert result["errors"] == []
    assert result["names"] == [OP_TYPE, str(VERSION), ""]
    assert result["kinds"] == ["PLUGIN_V3ONE_BUILD", "PLUGIN_V3ONE_RUNTIME"]


@pytest.mark.parametrize("phase", ["BUILD", "RUNTIME"])
@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", "attribute 'levels': expected integers, .*, found none"),
        ("unknown", "attribute 'groups' is unknown: expected heads, points and levels"),
        ("twice", "attribute 'heads' is there twice"),
        ("float", "attribute 'heads': expected one integer, found FLOAT32"),
        ("odd", r"attribute 'levels': .*, found \[100, 168, 50\]"),
        ("range", r"points: expected 1 to 8, found 9"),
    ],
)
def test_bad_fields(registry: dict[str, Any], case: str, message: str, phase: str) -> None:
    """The reason reaches TensorRT's logger; stderr, where the library was built for another major version."""
    result = registry["cases"][f"{case} {phase}"]
    assert not result["created"]
    said = [line for line in result["errors"] if line.startswith(OP_TYPE)] or registry["stderr"].splitlines()
    assert any(re.fullmatch(rf"{OP_TYPE} 'a node': {message}.*", line) for line in said)
