"""``bench``: how fast a model runs on this machine."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proscale_deploy.cli.options import model_argument, task_option
from proscale_deploy.core.types import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from proscale_deploy.runtime.bench import BenchReport
    from proscale_deploy.runtime.gpu.power import Power

_FRAMES = 16
"""Of a source that are kept in memory and used in turn."""


@click.command()
@model_argument
@task_option
@click.option("--source", help="An image, folder, glob or video to measure on.  [default: made-up 1080x1920 frames]")
@click.option("--runs", type=click.IntRange(min=1), default=50, help="Frames to measure, after a warm-up.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(model: Path, task: Task | None, source: str | None, runs: int, as_json: bool) -> None:
    """Measure MODEL here: latency by stage, throughput, memory, power."""
    from proscale_deploy.runtime.bench import bench as measure
    from proscale_deploy.runtime.bench import synthetic_frames
    from proscale_deploy.runtime.segmenter import Segmenter

    frames = _read(source) if source else synthetic_frames()
    with (
        Segmenter.open(model) as segmenter,
        click.progressbar(length=runs * min(segmenter.depth, 2), label="measuring", hidden=as_json) as bar,
    ):
        report = measure(segmenter, frames, task, runs, lambda: bar.update(1))
        architecture = segmenter.manifest.architecture
    if as_json:
        facts = {"model": str(model), "architecture": architecture, "frames": source or "synthetic"}
        click.echo(json.dumps(facts | dataclasses.asdict(report), indent=2))
    else:
        click.echo(f"{model}: {architecture}")
        _print(report, source)


def _read(source: str) -> "list[NDArray[np.uint8]]":
    from proscale_deploy.runtime.streams.source import open_source

    with open_source(source) as frames:
        return [frame.image for frame in itertools.islice(frames, _FRAMES)]


def _print(report: "BenchReport", source: str | None) -> None:
    frames = f"frames of {source}" if source else "made-up frames, which hold little to find: see --source"
    (height, width), (net_height, net_width) = report.frame_hw, report.input_hw
    click.echo(f"{report.task} on {report.session}, {report.runs} runs, {report.found:.1f} found per frame")
    click.echo(f"{height}x{width} {frames}; network input {net_height}x{net_width}")
    click.echo(f"\n  {'milliseconds':<14}{'p50':>9}{'p90':>9}{'p99':>9}")
    for stage, latency in report.latency.items():
        click.echo(f"  {stage:<14}{latency.p50:9.1f}{latency.p90:9.1f}{latency.p99:9.1f}")
    click.echo(f"\n  {report.frames_per_second:.2f} frames per second, one after the other")
    if report.overlapped_per_second and report.overlap:
        click.echo(f"  {report.overlapped_per_second:.2f} with two in flight, {report.overlap:.2f} times as many")
    if report.cuda_graph:
        click.echo(f"  CUDA graph: {report.cuda_graph}")
    if report.power:
        _print_power(report.power)
    click.echo(f"  {report.peak_memory_mb:.0f} MB peak memory of the process")
    click.echo(f"  {report.cpu}, {report.cpus} cores usable")
    click.echo("  " + ", ".join(f"{name} {version}" for name, version in report.versions.items()))


def _print_power(power: "Power") -> None:
    facts = [f"power mode {power.mode}"] if power.mode else []
    if power.gpu_mhz:
        clock = "GPU at " + "-".join(map(str, dict.fromkeys(power.gpu_mhz))) + " MHz"
        least, greatest = power.gpu_mhz_limits or (None, None)
        if greatest is not None:
            clock += ", locked" if least == greatest else f" of {greatest}"
        facts.append(clock)
    if power.celsius is not None:
        facts.append(f"{power.celsius:.0f} °C")
    if power.watts is not None:
        facts.append(f"{power.watts:.0f} W")
    if power.throttled is not None:
        facts.append(f"THROTTLED: {', '.join(power.throttled)}" if power.throttled else "not throttled")
    if facts:
        click.echo("  " + "; ".join(facts))
