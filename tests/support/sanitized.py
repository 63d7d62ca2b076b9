"""Runs Python code on a host library that was built with AddressSanitizer, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proscale_deploy.core import machine

__all__ = ["find_runtime", "run_sanitized"]

OPEN = """
import sys
from pathlib import Path

from proscale_deploy.core.native import Library

library = Library(Path(sys.argv[1]))
"""


def find_runtime() -> Path:
    """AddressSanitizer's library. Skips the test where there is none."""
    compiler = machine.cxx_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler: apt install g++")
    # The compiler gives back the bare name where it has none.
    command = [str(compiler.path), "-print-file-name=libasan.so"]
    found = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    if not found.is_absolute():
        pytest.skip("needs AddressSanitizer's runtime, which comes with g++")
    return found.resolve()


def run_sanitized(path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """What becomes of ``code``, which finds the library under the name ``library``."""
    environment = os.environ | {
        "LD_PRELOAD": str(find_runtime()),  # Python itself is built without
        "PYTHONPATH": os.pathsep.join(sys.path),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python frees less than it takes
        "OMP_NUM_THREADS": "2",
    }
    command = [sys.executable, "-c", OPEN + code, str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
