"""Live sources with cameras that misbehave, one kind of trouble at a time."""

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from proscale_deploy.core.errors import DeviceError, InputError
from proscale_deploy.runtime.streams import live as live_module
from proscale_deploy.runtime.streams.capture import Capture
from proscale_deploy.runtime.streams.live import LiveSource, Patience, waits
from support.cameras import CAMERA, QUICK, Camera, Step, connector, live, street
from support.color_model import picture


def endless(*steps: Step) -> Iterator[Step]:
    return itertools.chain(steps, street())


def test_frames_are_numbered_and_know_when_they_were_decoded() -> None:
    with live(Camera(street(), fps=200)) as source:
        frames = list(itertools.islice(source, 20))
    assert source.live
    assert [frame.index for frame in frames] == list(range(20))
    assert frames[3].name == "camera_1_000003"
    now = time.perf_counter()
    captured = [frame.captured for frame in frames]
    assert captured == sorted(captured)
    assert 0 < now - captured[-1] < 5
    assert frames[-1].timestamp - frames[9].timestamp == pytest.approx(captured[-1] - captured[9])
    assert source.description == "rtsp://camera/1: live, 180x120 at 200 frames per second, decoded by a stand-in"


def test_one_who_is_late_gets_the_newest_frame() -> None:
    with live(Camera(street(), fps=200)) as source:
        frames = iter(source)
        next(frames)
        time.sleep(0.6)
        before = time.perf_counter()
        frame = next(frames)
        assert frame.captured > before - 0.3
        next(frames)
        assert source.dropped > 5


@pytest.mark.parametrize("trouble", ["ends", "hangs"])
def test_a_stream_that_is_lost_comes_back(trouble: str) -> None:
    last: list[Step] = ["hang"] if trouble == "hangs" else []
    lost, back = Camera(iter([*street(3), *last]), fps=100), Camera(street(), fps=100)
    with live(lost, back) as source:
        seen = []
        frames = iter(source)
        for frame in itertools.islice(frames, 10):
            seen.append(frame.index)
        assert seen == list(range(10))
        assert (source.reconnects, source.interruption) == (1, "")
    if trouble == "hangs":
        assert not lost.released.is_set(), "released under a thread that reads"
        lost.gone.set()
    assert lost.released.wait(5)
    assert back.released.wait(5)


def test_while_it_is_lost_it_says_why() -> None:
    patience = Patience(opening=5, stall=5, first_retry=0.3, last_retry=0.3)
    with live(Camera(street(2), fps=100), patience=patience) as source:
        threading.Timer(1.0, source.stop).start()
        seen = []
        watcher = threading.Timer(0.3, lambda: seen.append(source.interruption))
        watcher.start()
        assert len(list(source)) in (1, 2)
        watcher.join()
    assert seen == ["the stream ended"]
    assert source.interruption == "cannot open rtsp://camera/1: nobody there"
    assert source.reconnects == 0


def test_a_connection_that_hangs_while_it_is_opened_is_left_alone() -> None:
    gone, second = threading.Event(), Camera(street(), fps=100)
    steps = iter([lambda: Camera(street(2), fps=100), lambda: gone.wait(20) and Camera(iter([])), lambda: second])

    def connect() -> Capture:
        return next(steps)()  # type: ignore[no-any-return, operator, return-value]

    patience = Patience(opening=1, stall=1, first_retry=0.02, last_retry=0.05)
    with LiveSource(CAMERA, connect, patience) as source:
        assert len(list(itertools.islice(source, 10))) == 10
        assert source.reconnects == 1
    gone.set()


def test_one_that_always_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "_MOST_HANGING", 2)
    cameras = [Camera(iter([picture(), "hang"])) for _ in range(4)]
    patience = Patience(opening=2, stall=0.05, first_retry=0.01, last_retry=0.01)
    with (
        live(*cameras, patience=patience) as source,
        pytest.raises(DeviceError, match=r"3 attempts .*start the program"),
    ):
        list(source)
    for camera in cameras:
        camera.gone.set()


def test_damaged_pictures_are_counted_and_survived() -> None:
    steps = itertools.chain(street(3), [None] * 4, street(3), [None], street())
    with live(Camera(steps, fps=200)) as source:
        assert len(list(itertools.islice(source, 9))) == 9
        assert (source.corrupt, source.reconnects) == (5, 0)


def test_a_reader_that_raises_is_a_stream_that_is_lost() -> None:
    def broken() -> Iterator[Step]:
        yield from street(2)
        raise RuntimeError("the cable was cut")

    with live(Camera(broken(), fps=100), Camera(street(), fps=100)) as source:
        assert len(list(itertools.islice(source, 8))) == 8
        assert source.reconnects == 1


def test_the_size_may_change() -> None:
    with live(Camera(itertools.chain(street(5), street(5, 60, 90), street()), fps=50)) as source:
        sizes = [frame.image.shape[:2] for frame in itertools.islice(source, 14)]
    assert [size for size, _ in itertools.groupby(sizes)] == [(120, 180), (60, 90), (120, 180)]


def test_nobody_there_at_the_start() -> None:
    with pytest.raises(InputError, match=r"^cannot open rtsp://camera/1: nobody there$"):
        live()
    with pytest.raises(InputError, match="cannot read rtsp://camera/1: no picture in it could be decoded"):
        live(Camera(iter([])))


def test_no_picture_at_the_start() -> None:
    camera = Camera(iter(["hang"]))
    with pytest.raises(InputError, match=r"no picture within 0.3 seconds"):
        live(camera, patience=Patience(opening=0.3))
    camera.gone.set()
    assert camera.released.wait(5)


@pytest.mark.parametrize("moment", ["waiting for a frame", "waiting to try again", "connecting"])
def test_it_can_be_stopped_at_any_moment(moment: str) -> None:
    patience = Patience(opening=30, stall=30, first_retry=30 if moment == "waiting to try again" else 0.01)
    steps: list[Step] = ["hang"] if moment == "waiting for a frame" else []
    cameras = [Camera(iter([picture(), *steps]), fps=100), Camera(iter(["hang"]))]
    with live(*cameras, patience=patience) as source:
        threading.Timer(0.3, source.stop).start()
        start = time.monotonic()
        assert len(list(source)) == 1
        assert time.monotonic() - start < 10
    for camera in cameras:
        camera.gone.set()


def test_attempts_become_rarer_to_a_limit_and_are_not_in_step() -> None:
    patience = Patience(first_retry=1, last_retry=8)
    several = [list(itertools.islice(waits(patience), 7)) for _ in range(20)]
    for middle, found in zip([1, 2, 4, 8, 8, 8, 8], zip(*several, strict=True), strict=True):
        assert 0.8 * middle <= min(found) < max(found) <= 1.2 * middle


def test_nothing_is_left_behind() -> None:
    cameras = [Camera(street(2), fps=200) for _ in range(10)]
    source = LiveSource(CAMERA, connector(cameras), QUICK)
    assert len(list(itertools.islice(source, 16))) == 16
    source.close()
    deadline = time.monotonic() + 5
    while any(thread.name == "live source" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sum(camera.released.is_set() for camera in cameras) >= 8
