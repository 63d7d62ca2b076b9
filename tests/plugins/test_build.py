"""What CMake makes of plugins/: the libraries' outside, and what it says when something is missing."""

import ast
import ctypes
import json
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from proscale_deploy import __version__
from proscale_deploy.core import machine

PLUGINS = Path(__file__).parents[2] / "plugins"
HEADERS = "".join(path.read_text() for path in (PLUGINS / "include" / "proscale").glob("*_api.h"))
DECLARED = set(re.findall(r"^[a-z].*?\b(proscale_\w+)\(", HEADERS, re.M))
ON_HOST = {name for name in DECLARED if not name.endswith("_cuda")}
ON_DEVICE = {name for name in DECLARED if not name.endswith("_host")}


def listing(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def exported(library: Path) -> set[str]:
    return {line.split()[-1] for line in listing("nm", "-D", "--defined-only", library).splitlines()}


def needed(library: Path) -> str:
    return " ".join(re.findall(r"\(NEEDED\).*\[(.+)\]", listing("readelf", "-d", library)))


def test_every_function_has_its_twin() -> None:
    assert {"proscale_version", "proscale_deform_attn_problem"} == ON_HOST & ON_DEVICE
    assert {name.removesuffix("_host") for name in ON_HOST - ON_DEVICE} == {
        name.removesuffix("_cuda") for name in ON_DEVICE - ON_HOST
    }


def test_host_library_exports_the_c_functions_and_onnx_runtimes_entry_point(host_library: Path) -> None:
    assert exported(host_library) == {*ON_HOST, "RegisterCustomOps"}
    assert "cuda" not in needed(host_library)


def test_plugin_library_exports_the_c_functions_and_tensorrts_entry_points(plugin_library: Path) -> None:
    assert exported(plugin_library) == {*ON_DEVICE, "getCreators", "setLoggerFinder"}


def test_plugin_library_needs_neither_tensorrt_nor_a_cuda_runtime(plugin_library: Path) -> None:
    assert not re.search("nvinfer|cuda", needed(plugin_library))
    undefined = listing("nm", "-D", "--undefined-only", plugin_library)
    assert not re.search("nvinfer1|cuda|getPluginRegistry|createInfer", undefined)


def test_both_say_their_version(host_library: Path, plugin_library: Path) -> None:
    for path in (host_library, plugin_library):
        library = ctypes.CDLL(str(path))
        library.proscale_version.restype = ctypes.c_char_p
        assert library.proscale_version().decode() == __version__


def test_the_kernels_alone(build_library: Callable[..., Path]) -> None:
    if machine.cuda_compiler() is None:
        pytest.skip("needs nvcc: CUDA toolkit 12.6 or newer")
    library = build_library("kernels", "proscale_plugin", "-DPROSCALE_TENSORRT=OFF", "-DCMAKE_CUDA_ARCHITECTURES=75")
    assert exported(library) == ON_DEVICE
    facts = json.loads(library.with_suffix(".json").read_text())
    assert facts["version"] == __version__
    assert facts["tensorrt"] is None
    assert facts["architectures"] == ["75"]


def test_an_installation_holds_all_that_is_compiled() -> None:
    """setup.py lists it by patterns, and pip says nothing of a file that none of them fits."""
    assigned = (
        node.value
        for node in ast.parse((PLUGINS.parent / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PLUGIN_SOURCES"
    )
    patterns = ast.literal_eval(next(assigned))
    shipped = {path for pattern in patterns for path in PLUGINS.glob(pattern)}
    needed = {path for path in PLUGINS.rglob("*") if path.suffix in {".h", ".cuh", ".cu", ".cpp", ".cmake", ".map"}}
    assert len(needed) > 20
    assert needed | {PLUGINS / "CMakeLists.txt"} <= shipped


class Problem(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("type", "heads", "head_dim", "points", "levels")]
    _fields_ += [("sizes", ctypes.c_int32 * 16)]


def problem(host_library: Path, capacity: int, *numbers: int, sizes: tuple[int, ...] = (3, 4)) -> tuple[int, bytes]:
    function = ctypes.CDLL(str(host_library)).proscale_deform_attn_problem
    text = ctypes.create_string_buffer(b"\x7f" * 99)
    op = Problem(*numbers, (ctypes.c_int32 * 16)(*sizes))
    length = function(ctypes.byref(op), text if capacity else None, capacity)
    assert text.raw[capacity:].strip(b"\x7f") in (b"", b"\0")
    return length, text.value


def test_problems_are_named(host_library: Path) -> None:
    assert problem(host_library, 99, 0, 8, 32, 4, 1) == (0, b"")
    assert (
        problem(host_library, 99, 3, 8, 32, 4, 1)[1] == b"type: expected 0 (float), 1 (half) or 2 (bfloat16), found 3"
    )
    assert problem(host_library, 99, 0, 8, 32, 9, 1)[1] == b"points: expected 1 to 8, found 9"
    assert problem(host_library, 99, 0, 8, 32, 4, 9)[1] == b"levels: expected 1 to 8, found 9"
    assert problem(host_library, 99, 0, 8, 32, 4, 2)[1].startswith(b"height of a level")


def test_a_short_buffer_is_not_overrun(host_library: Path) -> None:
    length, whole = problem(host_library, 99, 0, 8, 32, 9, 1)
    assert length == len(whole)
    assert problem(host_library, 7, 0, 8, 32, 9, 1) == (length, whole[:6])
    assert problem(host_library, 1, 0, 8, 32, 9, 1) == (length, b"")
    assert problem(host_library, 0, 0, 8, 32, 9, 1)[0] == length


def script(tmp_path: Path, *lines: str) -> tuple[int, str]:
    """Let CMake run lines of its language."""
    cmake = machine.cmake()
    if cmake is None:
        pytest.skip("needs cmake: pip install cmake")
    file = tmp_path / "script.cmake"
    file.write_text("\n".join(["cmake_minimum_required(VERSION 3.22)", *lines]))
    environment = {name: value for name, value in os.environ.items() if name != "TENSORRT_ROOT"}
    run = subprocess.run([cmake.path, "-P", file], capture_output=True, text=True, env=environment, cwd=tmp_path)
    return run.returncode, " ".join((run.stdout + run.stderr).split())


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ("50 75 80 86 87 89 90 90a", "75-real;80-real;86-real;87-real;89-real;90"),  # CUDA 12.6
        ("75 80 86 87 89 90 100 101 120", "75-real;80-real;86-real;87-real;89-real;90-real;100-real;101-real;120"),
        (
            "75 80 86 87 88 89 90 100 110 103 120 121",
            "75-real;80-real;86-real;87-real;89-real;90-real;100-real;110-real;120",
        ),
    ],
)
def test_architectures_by_default(tmp_path: Path, known: str, expected: str) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!/bin/sh\nprintf 'sm_%s\\n' {known}\n")
    nvcc.chmod(stat.S_IRWXU)
    lines = (
        f"include({PLUGINS}/cmake/Cuda.cmake)",
        f"proscale_known_architectures({nvcc} found)",
        'message("${found}")',
    )
    assert script(tmp_path, *lines) == (0, expected)


def headers(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "NvInfer.h").touch()
    (folder / "NvInferVersion.h").write_text(text)
    return folder


OLD = "#define NV_TENSORRT_MAJOR {} //!< x\n#define NV_TENSORRT_MINOR {} //!< x\n#define NV_TENSORRT_PATCH {} //!< x\n"
NEW = (
    "#define TRT_MAJOR_ENTERPRISE {}\n#define TRT_MINOR_ENTERPRISE {}\n#define TRT_PATCH_ENTERPRISE {}\n"
    "#define NV_TENSORRT_MAJOR TRT_MAJOR_ENTERPRISE\n#define NV_TENSORRT_MINOR TRT_MINOR_ENTERPRISE\n"
)


@pytest.mark.parametrize(("text", "version"), [(OLD, (10, 3, 0)), (NEW, (11, 1, 2))])
@pytest.mark.parametrize("below", [".", "include", "include/aarch64-linux-gnu"])
def test_headers_in_a_given_folder(tmp_path: Path, text: str, version: tuple[int, int, int], below: str) -> None:
    root = tmp_path / "sdk"
    headers(root / below, text.format(*version))
    status, said = script(tmp_path, f"set(TENSORRT_ROOT {root})", f"include({PLUGINS}/cmake/TensorRtHeaders.cmake)")
    assert status == 0
    assert said.startswith(f"-- TensorRT {'.'.join(map(str, version))}: {root}")


def test_headers_that_are_missing_or_too_old(tmp_path: Path) -> None:
    include = f"include({PLUGINS}/cmake/TensorRtHeaders.cmake)"
    status, said = script(tmp_path, f"set(TENSORRT_ROOT {tmp_path}/no)", include)
    assert status == 1
    assert f"Looked in: {tmp_path}/no/include {tmp_path}/no/. " in said
    assert "libnvinfer-headers-dev" in said
    assert "-DPROSCALE_TENSORRT=OFF" in said
    root = headers(tmp_path / "old", OLD.format(10, 2, 0))
    status, said = script(tmp_path, f"set(TENSORRT_ROOT {root})", include)
    assert status == 1
    assert "are of TensorRT 10.2.0; 10.3 or newer is needed" in said


def test_python_and_cmake_look_in_the_same_places() -> None:
    text = (PLUGINS / "cmake/TensorRtHeaders.cmake").read_text()
    lists = dict(re.findall(r"set\((\w+)\s+([^)\"$]+)\)", text))
    assert tuple(lists["PROSCALE_HEADER_FOLDERS"].split()) == machine.HEADER_FOLDERS
    assert tuple(lists["PROSCALE_HEADERS_IN_ROOT"].split()) == machine.HEADERS_IN_ROOT
