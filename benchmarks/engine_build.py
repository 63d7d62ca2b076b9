"""Engine builds with TensorRT-RTX: seconds, processor time, memory.

    python benchmarks/engine_build.py MODEL.onnx...

Memory is the largest sum of the resident memory of both processes of ``proscale-deploy build``, looked at 20 times a
second. Processor time includes reading and preparing the file; a busy machine changes it little.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from proscale_deploy.core.sidecar import read_sidecar


def main() -> None:
    print(f"{'file':<20}{'ONNX MB':>9}{'engine MB':>11}{'build s':>9}{'CPU s':>7}{'memory GB':>11}  computes in")
    for model in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            engine = Path(folder, "m.engine")
            processor, memory = measure(model, engine)
            sidecar = read_sidecar(engine)
            sizes = f"{model.stat().st_size / 1e6:>9.1f}{engine.stat().st_size / 1e6:>11.1f}"
        types = ", ".join(f"{count} {name}" for name, count in sidecar.precision.critical.items())
        print(f"{model.name:<20}{sizes}{sidecar.seconds:>9.1f}{processor:>7.1f}{memory / 1e9:>11.2f}  {types}")


def measure(model: Path, engine: Path) -> tuple[float, int]:
    """Build; seconds of processor time, bytes of memory."""
    command = [sys.executable, "-m", "proscale_deploy", "build", str(model), "--output", str(engine)]
    build = subprocess.Popen([*command, "--backend", "tensorrt-rtx"], stdout=subprocess.DEVNULL)
    memory = 0
    while True:
        pid, status, usage = os.wait4(build.pid, os.WNOHANG)
        if pid:
            build.returncode = os.waitstatus_to_exitcode(status)
            break
        memory = max(memory, sum(map(resident, [build.pid, *children(build.pid)])))
        time.sleep(0.05)
    if build.returncode:
        sys.exit(f"{model}: build ended with exit status {build.returncode}")
    return usage.ru_utime + usage.ru_stime, memory


def children(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:  # it has ended
        return []


def resident(pid: int) -> int:
    try:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


if __name__ == "__main__":
    main()
