"""What the compiled kernels consist of: instructions by kind, loop by loop. Needs no GPU.

    python -m plugins.bench.sass libproscale_plugin.so --arch sm_90 --kernel Tiled

The counts are static. A branch backwards closes a loop: all instructions from its target to itself are one iteration,
predicated ones and both sides of an inner branch included. What the compiler unrolled counts as often as it stands.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from proscale_deploy.core.errors import DeployError

__all__ = ["Instruction", "Kernel", "Loop", "kind_of", "loops_of", "parse_sass", "read_kernels", "table"]

_FUNCTION = re.compile(r"^\s+Function : (?P<name>\S+)")
_ARCHITECTURE = re.compile(r"^arch = (?P<arch>sm_\w+)")
_INSTRUCTION = re.compile(
    r"^\s+/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:@!?\w+\s+)?(?P<opcode>[A-Z][\w.]*)(?P<operands>[^;]*);"
)
_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")
_USAGE = re.compile(r"^\s+REG:(?P<registers>\d+) STACK:(?P<stack>\d+) SHARED:(?P<shared>\d+)")
_USAGE_OF = re.compile(r"^ Function (?P<name>[^:\s]+):")


@dataclass(frozen=True)
class Instruction:
    address: int
    opcode: str
    """With its modifiers: LDG.E.128.CONSTANT."""
    operands: str


@dataclass(frozen=True)
class Loop:
    start: int
    """Address of the first instruction."""
    end: int
    """Address of the branch back."""
    is_innermost: bool
    kinds: dict[str, int]
    """Instructions of one iteration; those of loops inside it count once."""


@dataclass(frozen=True)
class Kernel:
    arch: str
    name: str
    """Demangled where c++filt is at hand."""
    registers: int
    """Per thread."""
    stack: int
    """Bytes per thread."""
    shared: int
    """Bytes per block, without what the launch adds."""
    kinds: dict[str, int]
    loops: tuple[Loop, ...]


_KINDS = {
    "FP16 multiply, add": "HFMA2 HMUL2 HADD2 HMNMX2 HSET2 HSETP2",
    "FP16 into FP32": "FHFMA FHADD",
    "FFMA": "FFMA",
    "FMUL": "FMUL",
    "FADD": "FADD",
    "FFMA2, FMUL2, FADD2": "FFMA2 FMUL2 FADD2",
    "FP32 compare, select": "FMNMX FMNMX3 FSET FSETP FSEL FCHK FSWZADD",
    "MUFU": "MUFU",
    "conversion": "F2F F2FP F2I F2IP I2F I2FP I2I FRND",
    "integer": "IMAD IADD IADD3 VIADD VIADDMNMX VIMNMX VIMNMX3 IMNMX IABS ISETP ISCADD LEA LOP LOP3 SHF SHL SHR BMSK "
    "SGXT FLO POPC BREV IDP IMUL",
    "PRMT": "PRMT",
    "move, select": "MOV SEL R2UR R2P P2R",
    "predicate": "PLOP3 PSETP",
    "uniform": "",
    "SHFL, VOTE": "SHFL VOTE MATCH REDUX",
    "constant": "LDC ULDC LDCU",
    "barrier": "BAR MEMBAR DEPBAR LDGDEPBAR SYNCS WARPSYNC ENDCOLLECTIVE",
    "branch": "BRA BRX JMP BSSY BSYNC BREAK BMOV CALL RET EXIT YIELD BPT KILL",
    "special register": "S2R S2UR CS2R B2R R2B",
    "asynchronous copy": "LDGSTS UBLKCP LDSM STSM",
    "atomic": "ATOM ATOMG ATOMS RED REDG",
}
"""Rows of the table and their opcodes; loads and stores have a row for each width."""

_KIND = {opcode: kind for kind, opcodes in _KINDS.items() for opcode in opcodes.split()}


def kind_of(opcode: str, operands: str = "") -> str:
    """What an instruction does: the rows of the table."""
    base, *modifiers = opcode.split(".")
    if base in {"LDG", "LDS", "LDL", "LD", "STG", "STS", "STL", "ST"}:
        bits = next((m for m in modifiers if m in {"64", "128", "256", "U16", "S16", "U8", "S8"}), "32").lstrip("US")
        return f"{base}.{bits}"
    if base == "HADD2" and "F32" in modifiers:
        return "conversion"  # how a half becomes a float
    if opcode.startswith("IMAD.MOV") or (base in {"HFMA2", "IMAD"} and re.search(r"-?RZ, RZ,", operands)):
        return "move, select"  # given to another unit, so that the usual one is free
    if base == "CS2R" and operands.endswith("SRZ"):
        return "move, select"  # zeroes two registers
    return _KIND.get(base) or ("uniform" if base.startswith("U") else f"other: {base}")


def loops_of(instructions: Sequence[Instruction]) -> tuple[Loop, ...]:
    """The loops of one kernel, from the first to the last. Several branches to one place close one loop."""
    ends: dict[int, int] = {}
    for instruction in instructions:
        target = _TARGET.search(instruction.operands) if instruction.opcode.startswith(("BRA", "JMP")) else None
        # A branch to itself is the trap behind the end of a kernel.
        if target and (start := int(target[1], 16)) < instruction.address:
            ends[start] = instruction.address
    return tuple(
        Loop(
            start,
            end,
            not any(start <= a and b <= end and (a, b) != (start, end) for a, b in ends.items()),
            _count(i for i in instructions if start <= i.address <= end),
        )
        for start, end in sorted(ends.items())
    )


def _count(instructions: Iterable[Instruction]) -> dict[str, int]:
    return dict(Counter(kind_of(instruction.opcode, instruction.operands) for instruction in instructions))


def parse_sass(text: str) -> dict[tuple[str, str], list[Instruction]]:
    """``cuobjdump -sass`` to the instructions of each (architecture, mangled kernel name), without padding."""
    kernels: dict[tuple[str, str], list[Instruction]] = {}
    arch, current = "", None
    for line in text.splitlines():
        if found := _ARCHITECTURE.match(line):
            arch = found["arch"]
        elif found := _FUNCTION.match(line):
            current = kernels.setdefault((arch, found["name"]), [])
        elif current is not None and (found := _INSTRUCTION.match(line)) and found["opcode"] != "NOP":
            current.append(Instruction(int(found["address"], 16), found["opcode"], found["operands"].strip()))
    return kernels


def _parse_usage(text: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    usage: dict[tuple[str, str], tuple[int, int, int]] = {}
    arch = name = ""
    for line in text.splitlines():
        if found := _ARCHITECTURE.match(line):
            arch = found["arch"]
        elif found := _USAGE_OF.match(line):
            name = found["name"]
        elif found := _USAGE.match(line):
            usage[arch, name] = (int(found["registers"]), int(found["stack"]), int(found["shared"]))
    return usage


def read_kernels(file: Path, arch: str | None = None) -> list[Kernel]:
    """The kernels in a .so, .o, .cubin or executable, of one architecture ("sm_90") or of all.

    Raises:
        DeployError: there is no cuobjdump, or ``file`` holds no machine code that cuobjdump understands.
    """
    sass = _cuobjdump("-sass", file, arch)
    usage = _parse_usage(_cuobjdump("-res-usage", file, arch))
    kernels = parse_sass(sass)
    names = _demangle([name for _, name in kernels])
    return [
        Kernel(kernel_arch, name, *usage.get((kernel_arch, mangled), (0, 0, 0)), _count(code), loops_of(code))
        for ((kernel_arch, mangled), code), name in zip(kernels.items(), names, strict=True)
    ]


def _cuobjdump(what: str, file: Path, arch: str | None) -> str:
    homes = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    path = os.pathsep.join([os.environ.get("PATH", ""), *(f"{home}/bin" for home in homes if home)])
    tool = shutil.which("cuobjdump", path=path)
    if tool is None:
        raise DeployError("cuobjdump is not here: it comes with the CUDA toolkit; add its bin folder to PATH")
    command = [tool, what, *(["-arch", arch] if arch else []), str(file)]
    # It starts nvdisasm, which lies beside it.
    environment = os.environ | {"PATH": path + os.pathsep + str(Path(tool).parent)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode or "Function" not in run.stdout:
        reason = run.stderr.strip() or f"no machine code{f' for {arch}' if arch else ''}"
        raise DeployError(f"cannot read {file}: {reason}; expected a .so, .o or .cubin built by nvcc")
    return run.stdout


def _demangle(names: list[str]) -> list[str]:
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if tool is None or not names:
        return names
    run = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True)
    demangled = run.stdout.splitlines()
    # Without the parameters: `void proscale::plain<__half, 8>(...)`.
    short = [re.sub(r"\((?!anonymous).*", "", name).removeprefix("void ") for name in demangled]
    return short if len(short) == len(names) else names


def table(kernel: Kernel) -> str:
    """Kinds down, the whole kernel and its loops across."""
    columns = [("whole", kernel.kinds)]
    columns += [(f"{'*' if loop.is_innermost else ''}{loop.start:#x}", loop.kinds) for loop in kernel.loops]
    order = list(_KINDS)
    kinds = sorted(kernel.kinds, key=lambda kind: (order.index(kind) if kind in order else len(order), kind))
    lines = [
        f"{kernel.arch} {kernel.name}",
        f"  {kernel.registers} registers, {kernel.stack} B stack, {kernel.shared} B static shared memory",
        f"  {'':<24}" + "".join(f"{name:>9}" for name, _ in columns),
    ]
    rows = [("all", [sum(counts.values()) for _, counts in columns])]
    rows += [(kind, [counts.get(kind, 0) for _, counts in columns]) for kind in kinds]
    lines += [f"  {kind:<24}" + "".join(f"{count or '.':>9}" for count in counts) for kind, counts in rows]
    return "\n".join(lines)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--arch", help="One architecture: sm_90.  [default: all in the file]")
@click.option("--kernel", default="", help="Kernels whose name holds this.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(file: Path, arch: str | None, kernel: str, as_json: bool) -> None:
    """Count the instructions of the kernels in FILE (.so, .o, .cubin) by kind: whole, and per iteration of each loop,
    which is named by its first address; innermost loops have a star."""
    try:
        kernels = [found for found in read_kernels(file, arch) if kernel in found.name]
    except DeployError as error:
        raise click.ClickException(str(error)) from error
    if not kernels:
        raise click.ClickException(f"no kernel in {file} has {kernel!r} in its name")
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(found) for found in kernels], indent=2))
    else:
        click.echo("\n\n".join(map(table, kernels)))


if __name__ == "__main__":
    main()
