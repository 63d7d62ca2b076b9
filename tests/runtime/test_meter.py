"""Rates and latencies, on a clock that the test turns."""

import math

import pytest

from proscale_deploy.runtime.streams import meter as module
from proscale_deploy.runtime.streams.meter import STAGES, Meter


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(module, "perf_counter", clock := Clock())
    return clock


def test_before_the_first_frame(clock: Clock) -> None:
    meter = Meter()
    assert math.isnan(meter.age)
    assert (meter.frames, meter.frames_per_second, meter.recent(), meter.means()) == (0, 0, {}, {})


def test_current_figures_are_of_the_last_seconds_and_means_of_all(clock: Clock) -> None:
    meter = Meter()
    meter.start()
    for index in range(100):  # ten per second, 1 s each; then five per second, 2 s each
        fast = index < 50
        clock.now += 0.1 if fast else 0.2
        meter.segmented(1.0 if fast else 2.0)
        meter.add("inference", 0.01 if fast else 0.03)
    assert meter.frames == 100
    assert meter.elapsed == pytest.approx(15)
    assert meter.frames_per_second == pytest.approx(5, abs=0.3)
    assert meter.age == pytest.approx(2)
    assert meter.recent() == {"inference": pytest.approx(30)}
    assert meter.means() == {"inference": pytest.approx(20)}


def test_the_rate_of_a_stream_that_has_just_begun(clock: Clock) -> None:
    meter = Meter()
    meter.start()
    for _ in range(10):
        clock.now += 0.1
        meter.segmented(0.5)
    assert meter.frames_per_second == pytest.approx(10)


def test_the_rate_of_a_stream_that_is_faster_than_what_is_kept(clock: Clock) -> None:
    meter = Meter()
    meter.start()
    for _ in range(3000):
        clock.now += 1 / 500
        meter.segmented(0.005)
    assert meter.frames_per_second == pytest.approx(500, rel=0.01)


def test_while_nothing_comes(clock: Clock) -> None:
    meter = Meter()
    meter.start()
    meter.segmented(0.5)
    meter.add("draw", 0.1)
    clock.now += 60
    assert meter.frames_per_second == 0
    assert meter.age == 0.5, "of the last there was"
    assert meter.recent() == {}
    assert meter.means() == {"draw": pytest.approx(100)}


def test_stages_are_in_the_order_of_the_way(clock: Clock) -> None:
    meter = Meter()
    for stage in reversed(STAGES):
        meter.add(stage, 0.001)
    assert tuple(meter.recent()) == tuple(meter.means()) == STAGES


def test_memory_is_bounded(clock: Clock) -> None:
    meter = Meter()
    for _ in range(5000):
        meter.segmented(0.1)
        meter.add("write", 0.1)
    assert len(meter._ages) == len(meter._recent["write"]) == 1024
    assert meter.frames == 5000
