"""The GPUs that CUDA sees, asked of the driver: needs neither nvidia-smi nor pycuda."""

import ctypes
from dataclasses import dataclass

__all__ = ["Gpu", "default_gpu", "gpus"]

_CAPABILITY = (75, 76)
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Gpu:
    name: str
    capability: str
    """ "8.7"."""
    memory: int
    """Bytes; on a Jetson that of the whole board."""
    bus: str = ""
    """Its place on the PCI bus, "0000:65:00.0"."""


def default_gpu() -> Gpu | None:
    """Device 0, as CUDA_VISIBLE_DEVICES has it; None without a driver or a GPU."""
    return next(iter(gpus()), None)


def gpus() -> list[Gpu]:
    """All that CUDA_VISIBLE_DEVICES leaves; empty without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return []
    return [_gpu(driver, index) for index in range(count.value)]


def _gpu(driver: ctypes.CDLL, index: int) -> Gpu:
    device, name, memory, part = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    parts = []
    for attribute in _CAPABILITY:
        driver.cuDeviceGetAttribute(ctypes.byref(part), attribute, device)
        parts.append(str(part.value))
    bus = ctypes.create_string_buffer(32)
    driver.cuDeviceGetPCIBusId(bus, len(bus), device)
    return Gpu(name.value.decode(errors="replace"), ".".join(parts), memory.value, bus.value.decode())
