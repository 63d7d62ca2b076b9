"""The driver's answers become a Gpu; this machine may have none."""

import ctypes
from typing import Any

import pytest

from proscale_deploy.core import gpu
from proscale_deploy.core.gpu import Gpu, default_gpu, gpus


class Driver:
    """libcuda of a machine with some Orins."""

    def __init__(self, devices: int) -> None:
        self._devices = devices

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        ctypes.cast(count, ctypes.POINTER(ctypes.c_int))[0] = self._devices
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
        name.value = b"Orin"
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: Any) -> int:
        ctypes.cast(memory, ctypes.POINTER(ctypes.c_size_t))[0] = 32_000_000_000
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = {75: 8, 76: 7}[attribute]
        return 0


@pytest.mark.parametrize("devices", [0, 1, 2])
def test_driver(monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    orin = Gpu("Orin", "8.7", 32_000_000_000)
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: Driver(devices))
    assert gpus() == [orin] * devices
    assert default_gpu() == (orin if devices else None)


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(gpu.ctypes, "CDLL", missing)
    assert default_gpu() is None
