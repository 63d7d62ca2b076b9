"""A thousand times opened, used and closed."""

import re
from collections.abc import Callable
from pathlib import Path

from proscale_deploy.runtime.gpu.cuda import Device
from proscale_deploy.runtime.segmenter import Segmenter
from support.color_model import picture, write_color_model

CYCLES = 1000


def resident() -> int:
    """Bytes of the process in memory, which pinned memory is part of."""
    (kilobytes,) = re.findall(r"^VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return 1024 * int(kilobytes)


def test_opening_and_closing_leaks_nothing(build: Callable[..., Path]) -> None:
    """Neither on the GPU nor on the host; two batches were in flight, the second of them when it was closed."""
    engine = build(write_color_model)
    device = Device("tensorrt")
    import pycuda.driver

    free, used = [], []
    for cycle in range(CYCLES):
        with Segmenter.open(engine) as segmenter:
            segmenter.submit([picture()])
            segmenter.submit([picture(64, 96)], "semantic")
            segmenter.collect()
        if cycle in (CYCLES // 10, CYCLES - 1):  # the first ones load libraries and kernels
            with device.current("counting"):
                free.append(pycuda.driver.mem_get_info()[0])
            used.append(resident())
    assert free[0] - free[1] < 4 << 20
    assert used[1] - used[0] < 64 << 20
