"""Time on a CUDA device, by events around graphs: no launch of Python's is inside what is measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["FLUSH_BYTES", "LAUNCHES", "PATIENCE", "Recorded", "Times", "copy_bandwidth", "record", "time_in_turns"]

LAUNCHES = 50
"""In one graph, over the sets of inputs in turn."""
FLUSH_BYTES = 256 << 20
"""Written before a cold launch: more than any L2."""
PATIENCE = 2.0
"""Seconds of warm launches after which a peer is measured well enough."""


@dataclass(frozen=True)
class Times:
    """Microseconds."""

    median: float
    p95: float
    runs: int

    @classmethod
    def of(cls, microseconds: Sequence[float]) -> Times:
        ordered = sorted(microseconds)
        return cls(statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1], len(ordered))


@dataclass(frozen=True)
class Recorded:
    """What is measured of one peer: graphs, or plain calls where it refuses to be captured."""

    warm: Callable[[], object]
    """Queues `LAUNCHES` of them."""
    cold: Callable[[], object]
    """Queues one, on the first set of inputs."""
    result: Callable[[], torch.Tensor]
    """What `cold` computes, written over NaN."""
    is_captured: bool


def record(calls: Sequence[Callable[[], torch.Tensor]]) -> Recorded:
    """One call for each set of inputs. Raises what the calls raise."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in (*calls, *calls):  # compiles, loads and allocates what is made once
            call()
    stream.synchronize()
    try:
        return _capture(calls)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError:
        torch.cuda.synchronize()
        return Recorded(lambda: _queue(calls), calls[0], calls[0], is_captured=False)


def _capture(calls: Sequence[Callable[[], torch.Tensor]]) -> Recorded:
    cold, warm = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(cold):
        output = calls[0]()
    with torch.cuda.graph(warm, pool=cold.pool()):  # they never run at once
        _queue(calls)

    def result() -> torch.Tensor:
        output.fill_(torch.nan)
        cold.replay()
        return output

    return Recorded(warm.replay, cold.replay, result, is_captured=True)


def _queue(calls: Sequence[Callable[[], torch.Tensor]]) -> None:
    for launch in range(LAUNCHES):
        calls[launch % len(calls)]()


def time_in_turns(peers: Sequence[Recorded], rounds: int) -> list[tuple[Times, Times]]:
    """(warm, cold) time of one call of each peer. They take turns, so that a change of clocks hits all alike; a slow
    peer drops out after `PATIENCE`."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    warm: list[list[float]] = [[] for _ in peers]
    cold: list[list[float]] = [[] for _ in peers]
    for peer in peers:
        _elapsed(peer.warm)
    for _ in range(rounds):
        for peer, warm_times, cold_times in zip(peers, warm, cold, strict=True):
            if sum(warm_times) * LAUNCHES < PATIENCE * 1e6:
                warm_times.append(_elapsed(peer.warm) / LAUNCHES)
                cold_times.append(_elapsed(peer.cold, before=flush.zero_))
    return [(Times.of(a), Times.of(b)) for a, b in zip(warm, cold, strict=True)]


def _elapsed(queue: Callable[[], object], before: Callable[[], object] | None = None) -> float:
    """Microseconds on the device. `before` also keeps the device busy while the CPU queues the rest behind it."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    if before:
        before()
    start.record()
    queue()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return 1000 * milliseconds


def copy_bandwidth() -> float:
    """Bytes per second, read plus written, of a large copy on the device: what DRAM gives."""
    size = min(1 << 30, torch.cuda.mem_get_info()[0] // 8)
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    microseconds = [_elapsed(lambda: target.copy_(source)) for _ in range(10)][1:]
    return 2e6 * size / statistics.median(microseconds)
