"""The host library's functions of masks in a process of their own: with sanitizers, and with too little memory."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.sanitized import run_sanitized

SANITIZED = """
import numpy as np
from proscale_deploy.core.types import Placement
from proscale_deploy.runtime.compiled.mask_kernels import HostMasks
from proscale_deploy.runtime.taps import mask_plan
placements = [
    Placement((83, 95), (32, 37), (32, 64)), Placement((23, 31), (200, 266), (224, 288)),
    Placement((1, 1), (64, 64), (64, 96)), Placement((97, 113), (127, 149), (128, 160)),
]
rng = np.random.default_rng(0)
for placement in placements:
    for dtype in (np.float32, np.float16):
        height, width = placement.padded_hw
        masks = rng.normal(0, 50, (9, height // 4, width // 4)).astype(dtype)
        for first in (True, False):
            found = HostMasks(library, mask_plan(masks.shape[1:], placement, first), masks)
            found.semantic(rng.random((5, 9), np.float32))
        found = HostMasks(library, mask_plan(masks.shape[1:], placement), masks)
        codes, _ = found.panoptic(np.arange(9), np.ones(9, np.float32))
        found.relabel(codes, np.zeros((9, 2), np.int32))
        found.instances(np.arange(9))
        assert found.count_nonfinite() == 0
print("done")
"""


def test_sanitizers_find_nothing_in_the_host_library(build_library: Callable[..., Path]) -> None:
    path = build_library("sanitized", "proscale_host", "-DPROSCALE_CUDA=OFF", "-DPROSCALE_SANITIZE=address,undefined")
    done = run_sanitized(path, SANITIZED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


SHORT = """
import resource, sys
from pathlib import Path
import numpy as np
from proscale_deploy.core.errors import PluginError
from proscale_deploy.core.native import Library
from proscale_deploy.core.types import Placement
from proscale_deploy.runtime.compiled.mask_kernels import HostMasks
from proscale_deploy.runtime.taps import mask_plan
plan = mask_plan((8, 8), Placement((32, 32768), (32, 32), (32, 32)))
masks = HostMasks(Library(Path(sys.argv[1])), plan, np.zeros((2048, 8, 8), np.float32))
weights = np.ones((2048, 2048), np.float32)
masks.count_nonfinite()
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
calls = {"semantic": [weights], "instances": [np.arange(60)], "panoptic": [np.arange(2048), weights[0]]}
limit = taken + (16 << 20)  # 8 MiB are for the results
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name, arguments in calls.items():
    try:
        getattr(masks, name)(*arguments)
        print("done")
    except PluginError:
        print("too little")
"""


def test_memory_that_is_too_small_does_not_end_the_process(host_library: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SHORT, str(host_library)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "too little\ndone\ntoo little\n"), done.stderr
