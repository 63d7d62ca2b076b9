"""Runs the source of the CUDA kernels on the CPU; tests/plugins/emulator/machine.h says how."""

import fcntl
import functools
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy.core import machine
from proscale_deploy.core.native import Kernel
from support.deform_attn_cases import Case

__all__ = ["INVALID_VALUE", "Device", "KernelError", "Sanitizer", "launch", "program", "run"]

Sanitizer = Literal["none", "address", "thread"]

INVALID_VALUE = 1
"""cudaErrorInvalidValue"""

SOURCES = Path(__file__).parents[1] / "plugins" / "emulator"
FOLDER = Path(__file__).parents[2] / "build" / "plugins-test" / "emulator"
REPORTED = 66
"""Exit status after a sanitizer's report."""
ENVIRONMENT = {
    "ASAN_OPTIONS": f"exitcode={REPORTED}",
    "UBSAN_OPTIONS": f"exitcode={REPORTED}:print_stacktrace=1",
    "TSAN_OPTIONS": f"exitcode={REPORTED}:halt_on_error=1",
}


class KernelError(Exception):
    """What the machine or a sanitizer found."""


@dataclass(frozen=True)
class Device:
    """How the machine behaves."""

    seed: int = 2
    """0: the threads of a block run in their order; 1: in reverse; others: at random."""
    processors: int = 1
    """Where there are many, the launcher cuts small problems finer."""
    sanitizer: Sanitizer = "none"
    offsets: tuple[int, int, int] = (0, 0, 0)
    """Bytes from a multiple of 256 to where value, sampling and output begin."""


@functools.cache
def program(name: str, sanitizer: Sanitizer = "none") -> Path:
    """A program of tests/plugins/emulator, up to date. Skips the test where it cannot be built."""
    cmake = machine.cmake()
    if cmake is None:
        pytest.skip("needs cmake: pip install cmake")
    if machine.cxx_compiler() is None:
        pytest.skip("needs a C++ compiler: apt install g++")
    FOLDER.mkdir(parents=True, exist_ok=True)
    target = f"{name}_{sanitizer}"
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for arguments in (["-S", str(SOURCES), "-B", str(FOLDER)], ["--build", str(FOLDER), "--target", target]):
            built = subprocess.run(
                [cmake.path, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if built.returncode:
                pytest.fail(built.stdout, pytrace=False)
    return FOLDER / target


def run(command: list[str], data: bytes = b"") -> bytes:
    """What a program of the emulator prints.

    Raises:
        KernelError: with its message, or a sanitizer's.
    """
    done = subprocess.run(command, input=data, capture_output=True, env={**os.environ, **ENVIRONMENT}, timeout=300)
    if done.returncode:
        raise KernelError(f"exit status {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return done.stdout


def launch(case: Case, kernel: Kernel, device: Device | None = None) -> tuple[int, NDArray]:
    """The cudaError_t of the launcher, and the output, which was full of NaN before.

    Raises:
        KernelError: the kernel failed.
    """
    device = device or Device()
    attributes = case.attributes
    batch, _, channels = case.value.shape
    sizes = [size for level in attributes.levels for size in level]
    header = struct.pack(
        "30i",
        *(case.dtype, attributes.heads, channels // attributes.heads, attributes.points),
        *(len(attributes.levels), *sizes, *[0] * (16 - len(sizes))),
        *(batch, kernel, device.seed, device.processors, *device.offsets),
        *(case.value.nbytes, case.sampling.nbytes),
    )
    emulate = program("emulate", device.sanitizer)
    answer = run([str(emulate)], header + case.value.tobytes() + case.sampling.tobytes())
    return struct.unpack_from("i", answer)[0], np.frombuffer(answer, case.value.dtype, offset=4).reshape(
        case.value.shape
    )
