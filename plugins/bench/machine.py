"""What the figures stand on: device, driver, versions, and the clocks at the time."""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import torch

import proscale_deploy

__all__ = ["ClockReader", "Clocks", "facts"]


@dataclass(frozen=True)
class Clocks:
    """MHz and degrees Celsius as NVML tells; None where it does not (Jetson)."""

    sm_mhz: int | None = None
    memory_mhz: int | None = None
    temperature: int | None = None


class ClockReader:
    """Reads the clocks of torch's current device through NVML, which every driver but Jetson's brings."""

    def __init__(self) -> None:
        self._nvml: ctypes.CDLL | None = None
        self._device = ctypes.c_void_p()
        try:
            nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        # By UUID: NVML counts all devices, torch those in CUDA_VISIBLE_DEVICES.
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.device('cuda')).uuid}".encode()
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(self._device)) == 0:
            self._nvml = nvml

    def read(self) -> Clocks:
        """Now: call it while the device works."""
        return Clocks(
            self._number("nvmlDeviceGetClockInfo", 1), self._number("nvmlDeviceGetClockInfo", 2),
            self._number("nvmlDeviceGetTemperature", 0),
        )  # fmt: skip

    def greatest_sm_mhz(self) -> int | None:
        return self._number("nvmlDeviceGetMaxClockInfo", 1)

    def driver(self) -> str | None:
        text = ctypes.create_string_buffer(96)
        if self._nvml is None or self._nvml.nvmlSystemGetDriverVersion(text, len(text)):
            return None
        return text.value.decode()

    def _number(self, function: str, which: int) -> int | None:
        number = ctypes.c_uint()
        if self._nvml is None or getattr(self._nvml, function)(self._device, which, ctypes.byref(number)):
            return None
        return number.value


def facts(clocks: ClockReader) -> dict[str, Any]:
    """For the JSON file and the table's head. Versions of packages that are not installed are left out."""
    device = torch.cuda.get_device_properties(torch.device("cuda"))
    versions = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for package in ("torch", "triton", "deformops", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": device.name,
        "compute_capability": f"{device.major}.{device.minor}",
        "multiprocessors": device.multi_processor_count,
        "l2_bytes": device.L2_cache_size,
        "memory_bytes": device.total_memory,
        "driver": clocks.driver(),
        "greatest_sm_mhz": clocks.greatest_sm_mhz(),
        "proscale_deploy": proscale_deploy.__version__,
        "versions": versions,
    }
