"""One case, all peers: their times in turns, their errors against FP64, and what the device allows at best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from plugins.bench.cases import Case, make_inputs
from plugins.bench.forms import exact
from plugins.bench.machine import ClockReader, Clocks
from plugins.bench.peers import Peer
from plugins.bench.timing import Recorded, Times, record, time_in_turns
from proscale_deploy.core.errors import DeployError

__all__ = ["SETS", "Error", "Floor", "Measured", "Result", "error_of", "measure"]

SETS = 4
"""Of inputs, used in turn: together more than the L2 of an H200 for three levels in FP16."""

_L1_BYTES_PER_CLOCK = 128
"""Of one multiprocessor, from Volta to Blackwell."""


@dataclass(frozen=True)
class Error:
    """Against FP64 from the same inputs, on values N(0, 1)."""

    greatest: float
    rms: float


@dataclass(frozen=True)
class Floor:
    """Microseconds that no fused kernel can go below; None where a clock is not known."""

    dram: float
    """Every tensor once, at the bandwidth of a copy on this device."""
    l1: float | None
    """Four pixels for every sample, through the L1 caches at the measured clock."""

    @property
    def greater(self) -> float:
        return max(self.dram, self.l1 or 0.0)

    @classmethod
    def of(cls, case: Case, bandwidth: float, multiprocessors: int, sm_mhz: int | None) -> Floor:
        per_microsecond = _L1_BYTES_PER_CLOCK * multiprocessors * sm_mhz if sm_mhz else None
        l1 = case.corner_bytes / per_microsecond if per_microsecond else None
        return cls(case.bytes_moved / bandwidth * 1e6, l1)


@dataclass(frozen=True)
class Measured:
    """One peer."""

    peer: str
    problem: str | None = None
    """Why there is nothing else, or what is wrong with it."""
    is_captured: bool = True
    """False: timed by plain calls, which Python may slow down."""
    warm: Times | None = None
    cold: Times | None = None
    op_only: Times | None = None
    """Warm, without the preparation; None where the peer needs none."""
    error: Error | None = None
    of_floor: float | None = None
    """Share of the warm time that the floor would take."""


@dataclass(frozen=True)
class Result:
    case: Case
    clocks: Clocks
    floor: Floor
    peers: tuple[Measured, ...]


def measure(case: Case, peers: Sequence[Peer], bandwidth: float, clocks: ClockReader, rounds: int) -> Result:
    """Raises DeployError if a peer left the device unusable: what was measured before stands."""
    sets = [make_inputs(case, seed, "cuda") for seed in range(SETS)]
    measured = [Measured(peer.name) for peer in peers]
    whole: dict[int, Recorded] = {}
    op_only: dict[int, Recorded] = {}
    for number, peer in enumerate(peers):
        try:
            calls = [peer.bind(case, inputs) for inputs in sets]
            whole[number] = record([call.whole for call in calls])
            alone = [call.op_only for call in calls if call.op_only]
            if alone:
                op_only[number] = record(alone)
            torch.cuda.synchronize()
        except Exception as error:  # other people's kernels and compilers raise anything
            whole.pop(number, None)
            measured[number] = Measured(peer.name, _first_line(error))
            _check_device(peer.name)

    times = time_in_turns([*whole.values(), *op_only.values()], rounds)
    if whole:
        next(iter(whole.values())).warm()
    now = clocks.read()  # while the device works
    torch.cuda.synchronize()
    properties = torch.cuda.get_device_properties(torch.device("cuda"))
    floor = Floor.of(case, bandwidth, properties.multi_processor_count, now.sm_mhz)

    truth = exact(case, sets[0])
    for (number, recorded), (warm, cold) in zip(whole.items(), times, strict=False):
        against_truth = error_of(recorded.result(), truth)
        measured[number] = Measured(
            peers[number].name,
            None if against_truth else "the output holds NaN or infinities",
            recorded.is_captured,
            warm,
            cold,
            None,
            against_truth,
            floor.greater / warm.median,
        )
    for number, (warm, _) in zip(op_only, times[len(whole) :], strict=True):
        if number in whole:
            measured[number] = dataclasses.replace(measured[number], op_only=warm)
    return Result(case, now, floor, tuple(measured))


def error_of(output: torch.Tensor, truth: torch.Tensor) -> Error | None:
    """None if the output is not finite."""
    difference = output.double() - truth
    if not difference.isfinite().all():
        return None
    return Error(difference.abs().max().item(), difference.square().mean().sqrt().item())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"[:200]


def _check_device(peer: str) -> None:
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError as error:
        raise DeployError(f"{peer} left the device unusable ({_first_line(error)}): run without it") from error
