"""The host library under AddressSanitizer and UndefinedBehaviorSanitizer, over all cases, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from proscale_deploy.core import machine

IMPORTS = """
import sys
from pathlib import Path

import numpy as np

from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.operator import Attributes
from support.deform_attn_cases import cases

library = Library(Path(sys.argv[1]))
"""
ALL_CASES = """
for dtype in DType:
    for case in cases(dtype):
        case.check(library.host(case.attributes, case.value, case.sampling))
print("done")
"""
BEYOND_THE_VALUE = """
attributes = Attributes(2, 4, ((4, 6), (8, 12)))
rows = np.ones((1, attributes.tokens - 1, 2 * 32), np.float32)
claimed = np.lib.stride_tricks.as_strided(rows, (1, attributes.tokens, 2 * 32))
library.host(attributes, claimed, np.zeros((1, attributes.tokens, 3 * attributes.samples), np.float32))
"""


def run(library: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "LD_PRELOAD": str(_runtime()),  # Python itself is built without
        "PYTHONPATH": os.pathsep.join(sys.path),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees less than it takes
        "OMP_NUM_THREADS": "2",
    }
    command = [sys.executable, "-c", IMPORTS + code, str(library)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def _runtime() -> Path:
    """AddressSanitizer's library; the compiler gives back the bare name where it has none."""
    compiler = machine.cxx_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler: apt install g++")
    command = [str(compiler.path), "-print-file-name=libasan.so"]
    found = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    if not found.is_absolute():
        pytest.skip("needs AddressSanitizer's runtime, which comes with g++")
    return found.resolve()


@pytest.fixture(scope="module")
def sanitized(build_library: Callable[..., Path]) -> Path:
    _runtime()
    return build_library("sanitized", "proscale_host", "-DPROSCALE_CUDA=OFF", "-DPROSCALE_SANITIZE=address,undefined")


def test_no_report_over_all_cases(sanitized: Path) -> None:
    assert b"__ubsan_handle" in sanitized.read_bytes()
    done = run(sanitized, ALL_CASES)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_read_beyond_the_value_is_reported(sanitized: Path) -> None:
    """Or no report would mean nothing."""
    done = run(sanitized, BEYOND_THE_VALUE)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
