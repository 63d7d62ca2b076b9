"""What the CUDA kernels take of a multiprocessor, as ptxas reports it. Needs nvcc, no GPU.

python -m support.kernel_resources      # in tests/: records the table that test_resources.py compares with
"""

import csv
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from proscale_deploy.core import machine
from proscale_deploy.core.machine import Tool

__all__ = ["TABLE", "Usage", "architectures", "compile_kernels", "read_table"]

PLUGINS = Path(__file__).parents[2] / "plugins"
TABLE = Path(__file__).parents[1] / "plugins" / "resources.csv"
"""Registers, kernel by architecture; in the corner the version of CUDA."""

ENTRY = re.compile(r"'_ZN8proscale(?P<length>\d+)(?P<rest>\w+)'")
"""A mangled name: how long the function's own is, then that with its template arguments."""
ARGUMENTS = re.compile(r"I(?:\d+__)?(?P<type>\w+?)(?P<numbers>(?:L[ib]\d+E)*)E")
"""An element type, then numbers."""
TYPES = {"f": "float", "t": "uint16", "j": "uint32", "nv_bfloat16": "bfloat16"}
MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")


@dataclass(frozen=True)
class Usage:
    """Of one kernel."""

    registers: int
    """Per thread."""
    stack: int
    """Bytes per thread."""
    spills: int
    """Bytes per thread, stored or loaded."""
    shared: int
    """Bytes per block, without what a launch adds."""


def architectures(nvcc: Tool) -> list[str]:
    """Those of plugins/cmake/Cuda.cmake that ``nvcc`` knows: "75", "80", ..."""
    listed = re.search(r"^set\(PROSCALE_ARCHITECTURES ([\d ]+)\)", (PLUGINS / "cmake/Cuda.cmake").read_text(), re.M)
    assert listed is not None
    known = subprocess.run([nvcc.path, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    return [architecture for architecture in listed[1].split() if f"sm_{architecture}" in known]


def compile_kernels(nvcc: Tool, architecture: str) -> dict[str, Usage]:
    """Usage by kernel: "deformAttnTiled<half, 32, 3>"."""
    # As plugins/CMakeLists.txt compiles, but no code for the host.
    options = [str(nvcc.path), "-std=c++17", "-O3", "-DNDEBUG", "--expt-relaxed-constexpr", "--resource-usage"]
    options += [f"-arch=sm_{architecture}", "-I", str(PLUGINS / "include"), "-I", str(PLUGINS / "src")]
    usages: dict[str, Usage] = {}
    for source in sorted((PLUGINS / "src").glob("*.cu")):
        command = [*options, "--cubin", "-o", "/dev/null", str(source)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
        usages.update(_parse(done.stdout))
    return usages


def _parse(report: str) -> Iterator[tuple[str, Usage]]:
    for entry in report.split("ptxas info    : Compiling entry function")[1:]:
        mangled = ENTRY.search(entry)
        memory, used = MEMORY.search(entry), REGISTERS.search(entry)
        if mangled is None or memory is None or used is None:
            raise RuntimeError(f"ptxas reports in an unknown form: {entry}")
        stack, stores, loads = map(int, memory.groups())
        yield _name(mangled), Usage(int(used[1]), stack, stores + loads, int(used[2] or 0))


def _name(mangled: re.Match[str]) -> str:
    name, rest = mangled["rest"][: int(mangled["length"])], mangled["rest"][int(mangled["length"]) :]
    arguments = ARGUMENTS.match(rest)
    if arguments is None:
        return name
    element = TYPES.get(arguments["type"], arguments["type"])
    numbers = re.findall(r"\d+", arguments["numbers"])
    return f"{name}<{', '.join([element, *numbers])}>"


def read_table() -> tuple[str, dict[tuple[str, str], int]]:
    """The version of CUDA, and registers by (kernel, architecture)."""
    with TABLE.open(newline="") as file:
        (corner, *columns), *rows = csv.reader(file)
    return corner.removeprefix("CUDA "), {
        (row[0], column): int(cell) for row in rows for column, cell in zip(columns, row[1:], strict=True)
    }


def _record() -> None:
    nvcc = machine.cuda_compiler()
    if nvcc is None:
        raise SystemExit("needs nvcc: CUDA toolkit")
    columns = architectures(nvcc)
    with ThreadPoolExecutor(machine.cpus()) as pool:
        usages = list(pool.map(lambda architecture: compile_kernels(nvcc, architecture), columns))
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([f"CUDA {nvcc.version}", *columns])
        for kernel in sorted(usages[0]):
            writer.writerow([kernel, *(usage[kernel].registers for usage in usages)])


if __name__ == "__main__":
    _record()
