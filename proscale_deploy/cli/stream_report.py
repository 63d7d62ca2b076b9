"""What is said of a stream on a terminal: while it runs, and at its end."""

import math
import shutil
import sys
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from proscale_deploy.runtime.streams.source import Source
    from proscale_deploy.runtime.streams.stats import StreamStats

__all__ = ["StatusLine", "count", "summary"]


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


class StatusLine:
    """One line on standard error that is written over, where that is a terminal; lost and found streams everywhere."""

    def __init__(self, source: "Source") -> None:
        self._live, self._length = source.live, source.length
        self._terminal = sys.stderr.isatty()
        self._lost_at: float | None = None

    def show(self, stats: "StreamStats") -> None:
        if stats.state == "reconnecting" and self._lost_at is None:
            self._lost_at = perf_counter()
            self._say(f"lost: {stats.message}; trying again")
        elif stats.state == "running" and self._lost_at is not None:
            self._say(f"back after {perf_counter() - self._lost_at:.1f} s")
            self._lost_at = None
        if self._terminal:
            # A line that breaks would not be written over.
            line = self._line(stats)[: shutil.get_terminal_size().columns - 1]
            click.echo(f"\r{line}\033[K", nl=False, err=True)

    def clear(self) -> None:
        if self._terminal:
            click.echo("\r\033[K", nl=False, err=True)

    def _say(self, text: str) -> None:
        self.clear()
        click.echo(text, err=True)

    def _line(self, stats: "StreamStats") -> str:
        of = f" of {self._length}" if self._length else ""
        rate = stats.frames_per_second
        parts = [f"{stats.frames}{of} frames", f"{rate:.1f} per second"]
        if self._live:
            parts += live_figures(stats)
        elif self._length and rate:
            parts.append(f"{max(0, self._length - stats.frames) / rate:.0f} s left")
        if stats.state == "reconnecting":
            parts.append(f"lost: {stats.message}")
        return ", ".join(parts)


def live_figures(stats: "StreamStats") -> list[str]:
    """What is only worth saying of live sources."""
    figures = [] if math.isnan(stats.age) else [f"{1000 * stats.age:.0f} ms old"]
    figures.append(f"{stats.dropped} dropped")
    if stats.reconnects:
        figures.append(count(stats.reconnects, "reconnect"))
    if stats.corrupt:
        figures.append(f"{stats.corrupt} corrupt")
    return figures


def summary(stats: "StreamStats", seconds: float, means: Mapping[str, float], *, live: bool) -> list[str]:
    """Lines; none where nothing was segmented."""
    if not stats.frames:
        return []
    rate = f"{count(stats.frames, 'frame')} in {seconds:.1f} s, {stats.frames / seconds:.2f} per second"
    lines = [", ".join([rate, *(live_figures(stats) if live else [])])]
    lines.append("milliseconds per frame, stages side by side:")
    return lines + [f"  {stage:<12}{milliseconds:9.1f}" for stage, milliseconds in means.items()]
