"""Threads, queues and outputs at work together, on a network that segments by colour."""

import math
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy.core.errors import DeployError, InputError
from proscale_deploy.core.types import Instances, Panoptic, RawOutput, Task
from proscale_deploy.runtime.segmenter import Segmenter
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.source import Frame, Source
from proscale_deploy.runtime.streams.stats import Segmented, StreamStats
from proscale_deploy.runtime.streams.stream import Stream
from support.cameras import Camera, live, street
from support.color_model import ColorSession, picture


class SlowSession(ColorSession):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def run(self, images: NDArray[np.float32]) -> list[RawOutput]:
        time.sleep(self.seconds)
        return super().run(images)


def segmenter(seconds: float = 0.0) -> Segmenter:
    return Segmenter(SlowSession(seconds))  # type: ignore[arg-type]


class Clip(Source):
    """Frames with an end, as fast as they are taken."""

    def __init__(self, length: int, error: Exception | None = None) -> None:
        super().__init__((), length, 25.0)
        self._error = error

    def __iter__(self) -> Iterator[Frame]:
        assert self.length is not None
        for index in range(self.length):
            yield Frame(picture(car=index % 60), f"f{index}", index, index, index / 25, time.perf_counter())
        if self._error:
            raise self._error


class Taken(Output):
    """Remembers what it was given, after ``seconds`` each; ``failing`` at one of them."""

    def __init__(self, seconds: float = 0.0, failing: int | None = None, draws: bool = False) -> None:
        self.items: list[Segmented] = []
        self.times: list[float] = []
        self.closed = 0
        self.threads: set[str] = set()
        self._seconds, self._failing, self._draws = seconds, failing, draws
        self.at: dict[int, Callable[[], object]] = {}

    def write(self, item: Segmented, picture: Picture) -> None:
        self.threads.add(threading.current_thread().name)
        if len(self.items) == self._failing:
            raise DeployError("this output has failed")
        if self._draws:
            assert picture().shape[0] > item.frame.image.shape[0]
        time.sleep(self._seconds)
        self.items.append(item)
        self.times.append(time.perf_counter())
        if action := self.at.get(len(self.items)):
            action()

    def close(self) -> None:
        self.closed += 1

    @property
    def ages(self) -> list[float]:
        """Seconds from the decoding of each frame to when it came here."""
        return [done - item.frame.captured for done, item in zip(self.times, self.items, strict=True)]

    @property
    def indices(self) -> list[int]:
        return [item.frame.index for item in self.items]


def test_of_what_has_an_end_nothing_is_dropped_and_the_order_kept() -> None:
    fast, slow = Taken(draws=True), Taken(0.005)
    stream = Stream(Clip(60), segmenter(), outputs=[fast, slow])
    assert stream.stats().state == "opening"
    assert math.isnan(stream.stats().age)
    stream.run()
    assert fast.indices == slow.indices == list(range(60))
    assert fast.closed == slow.closed == 1
    stats = stream.stats()
    assert (stats.state, stats.frames, stats.dropped, stats.reconnects) == ("ended", 60, 0, 0)
    assert list(stats.stages) == ["decode", "preprocess", "inference", "postprocess", "draw", "write"]
    assert list(stream.means()) == list(stats.stages)
    assert stream.unwritten() == {}
    assert threading.active_count() == 1 or not any("stream" in t.name for t in threading.enumerate())


def test_every_result_is_that_of_its_frame() -> None:
    taken, model = Taken(), segmenter()
    Stream(Clip(10), segmenter(), outputs=[taken]).run()
    for item in taken.items:
        alone = model(item.frame.image)
        assert isinstance(item.result, Panoptic)
        assert isinstance(alone, Panoptic)
        np.testing.assert_array_equal(item.result.map, alone.map)


def test_a_camera_faster_than_the_network_is_dropped_to_its_newest_frame() -> None:
    taken = Taken()
    with live(Camera(street(), fps=100)) as source:
        stream = Stream(source, segmenter(0.05), outputs=[taken])
        taken.at[20] = stream.stop
        stream.run()
    stats = stream.stats()
    # 10 ms between frames, 50 ms for each: several pass by for one that is taken, and none waits for two others.
    # Without dropping, the last would be as old as the stream is long.
    assert stats.dropped > 2 * stats.frames
    assert taken.indices == sorted(taken.indices)
    each = (taken.times[-1] - taken.times[0]) / (len(taken.times) - 1)
    assert np.median(taken.ages[10:]) < 3 * each


def test_a_camera_slower_than_the_network_loses_no_frame() -> None:
    taken = Taken()
    with live(Camera(street(), fps=15)) as source:
        stream = Stream(source, segmenter(), outputs=[taken])
        taken.at[15] = stream.stop
        stream.run()
    # None on an idle machine.
    assert 5 * stream.stats().dropped < stream.stats().frames


def test_an_output_that_is_slow_holds_up_nothing() -> None:
    fast, slow = Taken(), Taken(0.4)
    with live(Camera(street(), fps=50)) as source:
        stream = Stream(source, segmenter(), outputs=[slow, fast])
        fast.at[40] = stream.stop
        stream.run()
    assert len(fast.items) >= 40
    assert 2 <= len(slow.items) < len(fast.items) / 2
    assert slow.indices == sorted(slow.indices)
    assert stream.unwritten()[slow] > 0
    assert slow.closed == 1


class TwoDeep:
    """A segmenter that has two batches in flight, each ``seconds`` on its way, as on a GPU."""

    depth = 2

    def __init__(self, seconds: float) -> None:
        self._inner, self._seconds = segmenter(), seconds
        self._queue: deque[tuple[Sequence[NDArray[np.uint8]], Task | None, float]] = deque()
        self._free = 0.0
        self.most = 0
        self.manifest = self._inner.manifest
        self.check_task = self._inner.check_task

    @property
    def pending(self) -> int:
        return len(self._queue)

    def submit(self, frames: Sequence[NDArray[np.uint8]], task: Task | None = None) -> None:
        assert self.pending < self.depth
        self._free = max(self._free, time.perf_counter()) + self._seconds
        self._queue.append((frames, task, self._free))
        self.most = max(self.most, self.pending)

    def collect(self) -> Any:
        frames, task, done = self._queue.popleft()
        time.sleep(max(0.0, done - time.perf_counter()))
        return self._inner.timed(frames, task)


def test_batches_overlap_and_stay_in_order() -> None:
    taken, model = Taken(), TwoDeep(0.002)
    Stream(Clip(40), model, outputs=[taken]).run()  # type: ignore[arg-type]
    assert taken.indices == list(range(40))
    assert model.most == 2


def test_a_result_never_waits_for_another_frame() -> None:
    """With a frame every 200 ms and 10 ms for each, results are there before the next frame is."""
    taken, model = Taken(), TwoDeep(0.01)
    with live(Camera(street(), fps=5)) as source:
        stream = Stream(source, model, outputs=[taken])  # type: ignore[arg-type]
        taken.at[6] = stream.stop
        stream.run()
    nexts = [item.frame.captured for item in taken.items[1:]]
    assert sum(done < following for done, following in zip(taken.times, nexts, strict=False)) >= 3


def test_the_task_can_be_switched_while_it_runs() -> None:
    taken = Taken()
    with live(Camera(street(), fps=100)) as source:
        stream = Stream(source, segmenter(), "panoptic", [taken])
        taken.at[5] = lambda: stream.switch("instance")
        taken.at[20] = stream.stop
        stream.run()
    tasks = [item.task for item in taken.items]
    assert tasks == ["panoptic"] * tasks.count("panoptic") + ["instance"] * tasks.count("instance")
    assert min(tasks.count("panoptic"), tasks.count("instance")) >= 5
    assert all(isinstance(item.result, Instances) == (item.task == "instance") for item in taken.items)
    with pytest.raises(InputError, match="trained for"):
        stream.switch("depth")  # type: ignore[arg-type]


class FailingSession(ColorSession):
    def run(self, images: NDArray[np.float32]) -> list[RawOutput]:
        if len(self.batches) == 5:
            raise DeployError("the network has failed")
        return super().run(images)


@pytest.mark.parametrize("where", ["source", "network", "output"])
def test_an_error_in_any_thread_ends_all_and_is_raised(where: str) -> None:
    good = Taken()
    outputs = [good, Taken(failing=5)] if where == "output" else [good]
    source = Clip(8, DeployError("the source has failed")) if where == "source" else Clip(1000)
    model = Segmenter(FailingSession()) if where == "network" else segmenter()  # type: ignore[arg-type]
    stream = Stream(source, model, outputs=outputs)
    with pytest.raises(DeployError, match=f"the {where}|this {where} has failed"):
        stream.run()
    assert good.indices == list(range(len(good.items)))
    assert len(good.items) >= 4
    assert all(output.closed == 1 for output in outputs)
    assert stream.stats().state == "ended"
    assert "has failed" in stream.stats().message
    assert not any(thread.name.startswith("stream") for thread in threading.enumerate())


def test_an_output_that_fails_at_the_end_is_an_error_too() -> None:
    class Unfinished(Taken):
        def close(self) -> None:
            raise DeployError("not complete")

    with pytest.raises(DeployError, match="not complete"):
        Stream(Clip(3), segmenter(), outputs=[Unfinished()]).run()


def test_what_the_caller_is_interrupted_by_ends_it_in_good_order() -> None:
    taken = Taken()

    def tick(stats: StreamStats) -> None:
        assert stats.state == "running"
        assert stats.frames_per_second > 0
        raise KeyboardInterrupt

    with live(Camera(street(), fps=50)) as source:
        stream = Stream(source, segmenter(), outputs=[taken])
        with pytest.raises(KeyboardInterrupt):
            stream.run(tick)
    assert len(taken.items) >= 5
    assert taken.closed == 1
    assert not any(thread.name.startswith("stream") for thread in threading.enumerate())


def test_a_read_that_hangs_does_not_hang_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    class Hanging(Clip):
        def __iter__(self) -> Iterator[Frame]:
            yield from super().__iter__()
            release.wait(20)

    monkeypatch.setattr("proscale_deploy.runtime.streams.stream._HANGING_READ", 0.1)
    taken = Taken()
    stream = Stream(Hanging(3), segmenter(), outputs=[taken])
    taken.at[3] = stream.stop
    start = time.monotonic()
    stream.run()
    assert time.monotonic() - start < 5
    assert taken.indices == [0, 1, 2]
    release.set()


class Screen(Taken):
    on_main_thread = True

    def write(self, item: Segmented, picture: Picture) -> None:
        super().write(item, picture)
        self.finished = len(self.items) >= 5


@pytest.mark.parametrize("is_live", [True, False])
def test_a_window_is_served_by_the_caller_and_ends_the_stream_when_it_is_closed(is_live: bool) -> None:
    screen, other = Screen(), Taken()
    with live(Camera(street(), fps=50)) as camera:
        source = camera if is_live else Clip(8)
        stream = Stream(source, segmenter(), outputs=[screen, other])
        stream.run()
    assert screen.threads == {threading.current_thread().name}
    assert other.threads.isdisjoint(screen.threads)
    assert len(screen.items) >= 5
    assert screen.closed == other.closed == 1


def test_a_window_shows_the_last_frames_of_a_clip() -> None:
    screen = Taken(0.02)
    screen.on_main_thread = True
    Stream(Clip(8), segmenter(), outputs=[screen]).run()
    assert screen.indices == list(range(8))


def test_a_window_that_was_closed_is_given_nothing_more() -> None:
    screen, other = Screen(), Taken()
    Stream(Clip(50), segmenter(), outputs=[screen, other]).run()
    assert screen.indices == [0, 1, 2, 3, 4]
    assert other.indices == list(range(len(other.items)))


def test_ctrl_c_pressed_twice_still_finishes_the_files() -> None:
    """The second one comes while an output is being closed."""
    closing = threading.Event()

    class Long(Taken):
        def close(self) -> None:
            closing.set()
            time.sleep(0.5)
            super().close()

    def press_again() -> None:
        closing.wait(20)
        signal.pthread_kill(main.ident or 0, signal.SIGINT)

    def tick(stats: StreamStats) -> None:
        raise KeyboardInterrupt

    output, main, second = Long(), threading.main_thread(), threading.Thread(target=press_again)
    with live(Camera(street(), fps=50)) as source:
        second.start()
        with pytest.raises(KeyboardInterrupt):
            Stream(source, segmenter(), outputs=[output]).run(tick)
    assert output.closed == 1
    second.join()


def test_pictures_are_drawn_once_for_all_who_ask() -> None:
    drawn: list[int] = []

    class Drawing(Taken):
        def write(self, item: Segmented, picture: Picture) -> None:
            drawn.append(id(picture()))
            super().write(item, picture)

    one, two = Drawing(), Drawing()
    Stream(Clip(1), segmenter(), outputs=[one, two]).run()
    assert len(drawn) == 2
    assert len(set(drawn)) == 1


class Reader(Output):
    """Counts the frames that are alive somewhere."""

    def __init__(self) -> None:
        self.frames: weakref.WeakValueDictionary[int, Frame] = weakref.WeakValueDictionary()
        self.alive: list[int] = []

    def write(self, item: Segmented, picture: Picture) -> None:
        self.frames[item.frame.index] = item.frame
        self.alive.append(len(self.frames))


def test_frames_that_have_passed_are_forgotten() -> None:
    reader = Reader()
    Stream(Clip(200), segmenter(), outputs=[reader]).run()
    assert max(reader.alive) <= 4
    assert len(reader.frames) == 0
