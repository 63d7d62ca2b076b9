"""How fast a model runs here: latency by stage, throughput, memory."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.gpu import default_gpu
from proscale_deploy.core.machine import cpu_name, cpus, versions
from proscale_deploy.core.types import Instances, Panoptic, Result, Size, Task
from proscale_deploy.runtime.gpu.power import Power, PowerMeter
from proscale_deploy.runtime.segmenter import Segmenter, Timings
from proscale_deploy.runtime.session import TensorRTSession

__all__ = ["BenchReport", "Latency", "bench", "synthetic_frames"]

_WARM_UP = 3
"""Runs before the measured ones: allocations, caches, and lazily built kernels."""

_LOOK = 0.1
"""Seconds between two looks at clocks and temperature, which some cards take a while to tell."""

_ENGINES = ("onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda")


@dataclass(frozen=True)
class Latency:
    """Milliseconds per frame: half of the frames took no longer than ``p50``, and so on."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class BenchReport:
    """One measurement, with what is needed to repeat it."""

    session: str
    """What did the work."""
    task: Task
    frame_hw: Size
    input_hw: Size
    runs: int
    latency: dict[str, Latency]
    """By stage, in the order of the way: preprocess, inference, postprocess, on a GPU with upload and download around
    them; stages on the GPU are as the GPU measured them. Last, "total": from frame to result, by the wall clock."""
    frames_per_second: float
    """One frame after the other."""
    overlapped_per_second: float | None
    """With as many frames in flight as the segmenter takes; None where it takes one, or memory suffices for one."""
    overlap: float | None
    """``overlapped_per_second`` / ``frames_per_second``."""
    cuda_graph: str | None
    """What was done with the network's launches; None without a GPU."""
    power: Power | None
    """None where the platform tells nothing."""
    found: float
    """Segments, instances or classes per frame: post-processing takes the longer the more there is."""
    peak_memory_mb: float
    """The greatest resident size of the process (1 MB = 10^6 bytes), with Python, libraries, model and frames."""
    cpu: str
    cpus: int
    versions: dict[str, str]


def bench(
    segmenter: Segmenter,
    frames: Sequence[NDArray[np.uint8]],
    task: Task | None = None,
    runs: int = 50,
    progress: Callable[[], None] = lambda: None,
) -> BenchReport:
    """Segment ``frames`` (H, W, 3) over and over after a warm-up: ``runs`` times one after the other and, where the
    segmenter takes several at once, ``runs`` times overlapped. ``progress`` is called after each.

    Raises:
        InputError: as :class:`~proscale_deploy.runtime.segmenter.Segmenter`.
        DeviceError: the GPU fails.
    """
    task = segmenter.check_task(task)
    gpu = segmenter.session if isinstance(segmenter.session, TensorRTSession) else None
    meter = PowerMeter.open(default_gpu() if gpu else None)

    looked = 0.0

    def finished() -> None:
        nonlocal looked
        if meter and perf_counter() - looked > _LOOK:
            meter.look()
            looked = perf_counter()
        progress()

    for index in range(_WARM_UP):
        segmenter(frames[index % len(frames)], task)
    timings: list[Timings] = []
    seconds: list[float] = []
    found = 0
    for index in range(runs):
        start = perf_counter()
        results, timing = segmenter.timed([frames[index % len(frames)]], task)
        seconds.append(perf_counter() - start)
        timings.append(timing)
        found += _count(results[0])
        finished()
    rate = runs / sum(seconds)
    overlapped = _overlapped(segmenter, frames, task, runs, finished) if segmenter.depth > 1 else None
    spec = segmenter.manifest.input
    engines = [module for module in _ENGINES if module in sys.modules]
    stages = {stage: _latency([timing.stages[stage] for timing in timings]) for stage in timings[0].stages}
    return BenchReport(
        session=segmenter.name,
        task=task,
        frame_hw=(frames[0].shape[0], frames[0].shape[1]),
        input_hw=(spec.height, spec.width),
        runs=runs,
        latency=stages | {"total": _latency(seconds)},
        frames_per_second=rate,
        overlapped_per_second=overlapped,
        overlap=overlapped and overlapped / rate,
        cuda_graph=gpu.cuda_graph if gpu else None,
        power=meter.report() if meter else None,
        found=found / runs,
        peak_memory_mb=_peak_memory() / 1e6,
        cpu=cpu_name(),
        cpus=cpus(),
        versions={"python": sys.version.split()[0]} | versions(["proscale_deploy", "numpy", "cv2", "PIL", *engines]),
    )


def _overlapped(
    segmenter: Segmenter, frames: Sequence[NDArray[np.uint8]], task: Task, runs: int, finished: Callable[[], None]
) -> float | None:
    """Frames per second while as many as possible are in flight; None where memory turns out to be too small."""
    for _ in range(_WARM_UP):  # a lane's network is captured in its second run
        for index in range(segmenter.depth):
            segmenter.submit([frames[index % len(frames)]], task)
        while segmenter.pending:
            segmenter.collect()
        if segmenter.depth == 1:
            return None
    start = perf_counter()
    for index in range(runs):
        if segmenter.pending == segmenter.depth:
            segmenter.collect()
            finished()
        segmenter.submit([frames[index % len(frames)]], task)
    while segmenter.pending:
        segmenter.collect()
        finished()
    return runs / (perf_counter() - start)


def synthetic_frames(size: Size = (1080, 1920), count: int = 4, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Frames (H, W, 3) of soft colour clouds, always the same ones. A model finds little in them, so that
    post-processing is cheaper than it is on real frames.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 9, 16, 3), np.uint8)
    return [cv2.resize(c, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False) for c in coarse]


def _latency(seconds: list[float]) -> Latency:
    p50, p90, p99 = (float(p) for p in np.percentile(np.array(seconds) * 1000, (50, 90, 99)))
    return Latency(p50, p90, p99)


def _count(result: Result) -> int:
    if isinstance(result, Panoptic):
        return len(result.segments)
    return len(result.scores) if isinstance(result, Instances) else len(np.unique(result.map))


def _peak_memory() -> int:
    """Bytes; 0 where the system does not say."""
    # Not getrusage's ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status")
    match = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.M) if status.exists() else None
    return 1024 * int(match[1]) if match else 0
