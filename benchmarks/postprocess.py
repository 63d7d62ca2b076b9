"""Post-processing, in numpy and compiled, against the official form in PyTorch: time and memory in one run.

    python benchmarks/postprocess.py [--repeats N]

A typical scene (100 queries, 133 classes, 20 found) of a network at 800x1344, results at 1080x1920. Every figure comes
from a process of its own: median seconds of N calls after one to warm up, and what the first call added to the resident
memory (Linux only). Needs torch; ``proscale-deploy plugin build --host-only`` makes the compiled form, which is left
out where there is none.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from proscale_deploy.core.native import Library
from proscale_deploy.core.plugin_library import find_host
from proscale_deploy.core.types import ClassInfo, Placement, RawOutput, Thresholds
from support.scenes import typical_scene

PLACEMENT = Placement(source_hw=(1080, 1920), resized_hw=(750, 1333), padded_hw=(800, 1344))
CLASSES = tuple(ClassInfo(f"class {n}", n < 80, (0, 0, 0)) for n in range(133))
THRESHOLDS = {
    "panoptic": Thresholds(),
    "instance": Thresholds(tasks=("instance",)),
    "instance, things of a panoptic model": Thresholds(),
    "semantic": Thresholds(),
    "semantic, scores resized": Thresholds(tasks=("semantic",), resize_masks_first=False),
}


def in_numpy(case: str, raw: RawOutput) -> Callable[[], object]:
    from proscale_deploy.runtime.postprocess import postprocess

    task = case.split(",")[0]
    return lambda: postprocess(raw, PLACEMENT, CLASSES, THRESHOLDS[case], task)


def compiled(case: str, raw: RawOutput) -> Callable[[], object]:
    from proscale_deploy.runtime.compiled.compiled_postprocess import compiled_postprocess

    host, task = find_host(), case.split(",")[0]
    assert host is not None
    library = Library(host)
    return lambda: compiled_postprocess(library, raw, PLACEMENT, CLASSES, THRESHOLDS[case], task)


def official(case: str, raw: RawOutput) -> Callable[[], object]:
    import torch

    from support import official_postprocess as form

    torch.set_num_threads(os.cpu_count() or 1)
    logits = torch.from_numpy(raw.class_logits), torch.from_numpy(raw.mask_logits)
    things = {n for n, info in enumerate(CLASSES) if info.is_thing}
    if case == "panoptic":
        return lambda: form.panoptic(*logits, PLACEMENT, things)
    if case.startswith("instance"):
        kept = things if "panoptic" in THRESHOLDS[case].tasks else set(range(len(CLASSES)))
        return lambda: form.instances(*logits, PLACEMENT, kept)
    return lambda: form.semantic(*logits, PLACEMENT, THRESHOLDS[case].resize_masks_first)


def measure(
    form: Callable[[str, RawOutput], Callable[[], object]], case: str, raw: RawOutput, repeats: int
) -> tuple[float, float]:
    """(median seconds, peak MB above the state before the first call), in a fresh process."""
    call = form(case, raw)
    before = _reset_peak()
    call()
    peak = _resident("VmHWM") - before
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), peak


def _reset_peak() -> float:
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(field: str) -> float:
    """A line of /proc/self/status, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each form (default: %(default)s)")
    repeats = parser.parse_args().repeats
    raw = typical_scene((PLACEMENT.padded_hw[0] // 4, PLACEMENT.padded_hw[1] // 4))
    forms = {"official": official, "numpy": in_numpy} | ({"compiled": compiled} if find_host() else {})
    print(f"{'':38}" + "".join(f"{name:>26}" for name in forms))
    for case in THRESHOLDS:
        print(f"{case:38}", end="", flush=True)
        slow = None
        for form in forms.values():
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                seconds, peak = process.submit(measure, form, case, raw, repeats).result()
            slow = slow or seconds
            print(f"{seconds * 1e3:7.0f} ms {peak:5.0f} MB {slow / seconds:5.1f}x", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
