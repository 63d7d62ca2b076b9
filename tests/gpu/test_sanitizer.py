"""The kernels under compute-sanitizer."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proscale_deploy.core import machine

ROOT = Path(__file__).parents[2]
ERRORS = 9
"""Exit status when the tool found something."""


@pytest.fixture(scope="module")
def program(library_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sanitized.cpp, compiled."""
    nvcc = machine.cuda_compiler()
    if nvcc is None:
        pytest.skip("needs nvcc: CUDA toolkit 12.6 or newer")
    program = tmp_path_factory.mktemp("sanitized") / "sanitized"
    library = library_path.resolve()
    subprocess.run(
        [
            *(nvcc.path, "-std=c++17", "-O1", "-x", "cu", "-I", ROOT / "plugins" / "include"),
            *(Path(__file__).with_name("sanitized.cpp"), "-o", program),
            *("-L", library.parent, f"-l:{library.name}", "-Xlinker", f"-rpath={library.parent}"),
        ],
        check=True,
    )
    return program


def test_without_the_sanitizer(program: Path) -> None:
    run = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.fullmatch(r"33 launches, 0 failed\n", run.stdout)


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck", "initcheck"])
def test_nothing_found(program: Path, tool: str) -> None:
    nvcc = machine.cuda_compiler()
    folders = [os.environ.get("PATH", ""), *([str(nvcc.path.resolve().parent)] if nvcc else []), "/usr/local/cuda/bin"]
    sanitizer = shutil.which("compute-sanitizer", path=os.pathsep.join(folders))
    if sanitizer is None:
        pytest.skip("needs compute-sanitizer of the CUDA toolkit")
    run = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", str(ERRORS), program],
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = run.stdout + run.stderr
    if re.search(r"not supported|failed to initialize|Unable to find injection", said, re.IGNORECASE):
        pytest.skip(f"needs a machine on which compute-sanitizer works: {said.strip().splitlines()[-1]}")
    assert run.returncode == 0, said
    assert re.search(r"(ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards)", said), said
