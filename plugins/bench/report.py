"""Results as a table for people and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plugins.bench.measure import SETS, Measured, Result
from plugins.bench.timing import FLUSH_BYTES, LAUNCHES
from proscale_deploy.core.files import replacing

__all__ = ["head", "table", "write_json"]

_COLUMNS = f"{'microseconds':<28}" + "".join(f"{name:>9}" for name in ("warm", "p95", "cold", "op only"))
_COLUMNS += f"{'times':>7}{'floor':>7}{'max err':>9}{'RMS':>9}"


def head(machine: dict[str, Any], bandwidth: float) -> str:
    """What stands above the tables."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['device']}, compute capability {machine['compute_capability']}, "
        f"{machine['multiprocessors']} multiprocessors, L2 {machine['l2_bytes'] >> 20} MiB, "
        f"driver {machine['driver'] or 'not known'}\n{versions}\n"
        f"a copy moves {bandwidth / 1e12:.2f} TB/s, read plus written; {SETS} sets of inputs in turn\n"
        f"warm: a call's share of a graph of {LAUNCHES}; cold: one call after {FLUSH_BYTES >> 20} MiB were written; "
        "medians\n"
        "times: as long as the first peer takes; floor: share of the warm time that the least traffic takes; errors: "
        "against FP64"
    )


def table(result: Result) -> str:
    """One case, a row for each peer; the first is what the others are compared with."""
    case, floor, clock = result.case, result.floor, result.clocks.sm_mhz
    lines = [
        f"{case.name}: {case.attributes.tokens} tokens, {case.bytes_moved / 1e6:.1f} MB; floor: DRAM {floor.dram:.1f}, "
        f"L1 {'not known' if floor.l1 is None else f'{floor.l1:.1f}'}; SM at {clock or '?'} MHz",
        "  " + _COLUMNS,
    ]
    first = next((peer.warm for peer in result.peers if peer.warm), None)
    for peer in result.peers:
        if peer.warm is None or peer.cold is None or first is None:
            lines.append(f"  {peer.peer:<28}{peer.problem}")
            continue
        name = peer.peer + ("" if peer.is_captured else " (no graph)")
        errors = f"{peer.error.greatest:9.1e}{peer.error.rms:9.1e}" if peer.error else f"  {peer.problem}"
        lines.append(
            f"  {name:<28}{peer.warm.median:9.1f}{peer.warm.p95:9.1f}{peer.cold.median:9.1f}"
            f"{'' if peer.op_only is None else f'{peer.op_only.median:.1f}':>9}"
            f"{peer.warm.median / first.median:7.2f}{peer.of_floor or 0:7.0%}{errors}"
        )
    return "\n".join(lines)


def write_json(path: Path, machine: dict[str, Any], bandwidth: float, results: Sequence[Result]) -> None:
    """The file is there whole or not at all. Times in microseconds."""
    document = {
        "machine": machine,
        "copy_bytes_per_second": bandwidth,
        "launches_per_graph": LAUNCHES,
        "flush_bytes": FLUSH_BYTES,
        "input_sets": SETS,
        "results": [_plain(result) for result in results],
    }
    with replacing(path) as file:
        file.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _plain(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "name": case.name,
        "case": dataclasses.asdict(case),
        "tokens": case.attributes.tokens,
        "bytes_moved": case.bytes_moved,
        "corner_bytes": case.corner_bytes,
        "clocks": dataclasses.asdict(result.clocks),
        "floor": dataclasses.asdict(result.floor),
        "peers": [_peer(peer) for peer in result.peers],
    }


def _peer(peer: Measured) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(peer).items() if value is not None}
