"""GPUs as the driver tells of them; here a driver of our own, so that no GPU is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proscale_deploy.core import machine

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return FAILS; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = 40 + ordinal; return 0; }
int cuDeviceGetName(char* name, int length, int device) {
    strncpy(name, device == 40 ? "Orin" : "L4", length);
    return 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = (size_t)(device - 39) << 33; return 0; }
int cuDeviceGetPCIBusId(char* bus, int length, int device) {
    strncpy(bus, device == 40 ? "0000:01:00.0" : "0001:65:00.0", length);
    return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    *value = attribute == 75 ? 8 : device == 40 ? 7 : 9;
    return 0;
}
"""


ORIN_AND_L4 = "[('Orin', '8.7', 8589934592, '0000:01:00.0'), ('L4', '8.9', 17179869184, '0001:65:00.0')]"


@pytest.mark.parametrize(("fails", "expected"), [(0, ORIN_AND_L4), (100, "[]")])
def test_gpus(tmp_path: Path, fails: int, expected: str) -> None:
    compiler = machine.cxx_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler")
    (tmp_path / "driver.c").write_text(DRIVER)
    library = ["-shared", "-fPIC", f"-DFAILS={fails}", "-o", tmp_path / "libcuda.so.1"]
    subprocess.run([compiler.path, "-x", "c", tmp_path / "driver.c", *library], check=True)
    code = "from proscale_deploy.core.gpu import gpus; print([(g.name, g.capability, g.memory, g.bus) for g in gpus()])"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=root)
    assert (run.stdout.strip(), run.stderr) == (expected, "")
