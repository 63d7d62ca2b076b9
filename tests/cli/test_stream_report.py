"""What is said of a stream on a terminal."""

import dataclasses
import io
import math
import sys

import pytest

from proscale_deploy.cli.stream_report import StatusLine, summary
from proscale_deploy.runtime.streams.source import Source
from proscale_deploy.runtime.streams.stats import StreamStats

RUNNING = StreamStats("running", "", 120, 30, 0, 12.5, 0.0481, {"inference": 40.0})
LOST = dataclasses.replace(RUNNING, state="reconnecting", message="the stream ended", frames_per_second=0.0)


class Live(Source):
    live = True

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield from ()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What each rewriting of the line showed."""
        return [line.removesuffix("\033[K") for line in self.getvalue().split("\r")[1:]]


def use_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Within a test: pytest puts its own stream there before each."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    return terminal


def test_a_live_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    status = StatusLine(Live((), None, 25.0))
    status.show(dataclasses.replace(RUNNING, state="opening", frames=0, frames_per_second=0.0, age=math.nan))
    status.show(RUNNING)
    status.show(dataclasses.replace(RUNNING, reconnects=1, corrupt=3))
    assert terminal.lines == [
        "0 frames, 0.0 per second, 30 dropped",
        "120 frames, 12.5 per second, 48 ms old, 30 dropped",
        "120 frames, 12.5 per second, 48 ms old, 30 dropped, 1 reconnect, 3 corrupt",
    ]


def test_what_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)

    class Clip(Live):
        live = False

    StatusLine(Clip((), 370, 25.0)).show(RUNNING)
    StatusLine(Clip((), None, 25.0)).show(RUNNING)
    assert terminal.lines == ["120 of 370 frames, 12.5 per second, 20 s left", "120 frames, 12.5 per second"]


def test_lost_and_found(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    status = StatusLine(Live((), None, 25.0))
    for stats in (RUNNING, LOST, LOST, RUNNING, RUNNING):
        status.show(stats)
    said = terminal.getvalue()
    assert said.count("\r\033[Klost: the stream ended; trying again\n") == 1
    assert said.count("\r\033[Kback after 0.0 s\n") == 1
    assert said.count("0.0 per second, 48 ms old, 30 dropped, lost: the stream ended") == 2


def test_a_long_line_does_not_break(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = use_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "60")
    StatusLine(Live((), None, 25.0)).show(dataclasses.replace(LOST, message="nothing answers " * 10))
    assert terminal.lines[-1] == "120 frames, 0.0 per second, 48 ms old, 30 dropped, lost: no"


def test_without_a_terminal_only_what_happens_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    status = StatusLine(Live((), None, 25.0))
    for stats in (RUNNING, LOST, LOST, RUNNING):
        status.show(stats)
    status.clear()
    out, err = capsys.readouterr()
    assert out == ""
    lost, back = err.splitlines()
    assert lost == "lost: the stream ended; trying again"
    assert back == "back after 0.0 s"


def test_the_summary() -> None:
    assert summary(RUNNING, 10.0, {"inference": 41.25, "write": 2.0}, live=True) == [
        "120 frames in 10.0 s, 12.00 per second, 48 ms old, 30 dropped",
        "milliseconds per frame, stages side by side:",
        "  inference        41.2",
        "  write             2.0",
    ]
    assert summary(RUNNING, 10.0, {}, live=False)[0] == "120 frames in 10.0 s, 12.00 per second"
    assert summary(dataclasses.replace(RUNNING, frames=0), 1.0, {}, live=True) == []
