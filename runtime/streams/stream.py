"""A source, a segmenter and outputs at work together, each in a thread of its own::

    with open_input("rtsp://camera/1") as source, Segmenter.open("model.onnx") as segmenter:
        Stream(source, segmenter, outputs=[open_output("out.mp4", source)]).run()

decode --(frames)--> inference --(results)--> one thread per output. The queues between them are short. Where the source
is live they replace the oldest by the newest: latency does not grow, and an output that is slow holds up nothing. Where
it has an end they make the giver wait: nothing is dropped, and the order is kept.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter, sleep

from proscale_deploy.core.errors import DeployError
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import Task
from proscale_deploy.runtime.segmenter import Segmenter
from proscale_deploy.runtime.streams.channel import Channel
from proscale_deploy.runtime.streams.meter import Meter
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.source import Frame, Source
from proscale_deploy.runtime.streams.stats import Segmented, State, StreamStats

__all__ = ["Stream"]

_AHEAD = 4
"""Frames or results of a source with an end that wait in a queue."""
_LIVE_BACKLOG = 2
"""Results of a live source that wait for an output: one that is late now and then still gets all of them."""
_TICK = 0.5
"""Seconds between calls of ``tick``."""
_IDLE = 0.05
"""Seconds between looks at a window that gets no pictures."""
_LOOK = 0.01
"""Seconds between looks at whether threads have ended."""
_FINISH = 60.0
"""Seconds that the end may take: an index is written, a server says goodbye."""
_HANGING_READ = 1.0
"""Seconds that a read may take to come back at the end; one that hangs is left behind."""


class Stream:
    """Runs once, from :meth:`run` to the end of the source, an error, or :meth:`stop`.

    ``source`` and ``segmenter`` remain the caller's, who closes them after it; the outputs are closed by the stream.

    Raises:
        InputError: the model was not trained for the task.
    """

    def __init__(
        self, source: Source, segmenter: Segmenter, task: Task | None = None, outputs: Sequence[Output] = ()
    ) -> None:
        self._source, self._segmenter, self._task = source, segmenter, segmenter.check_task(task)
        self._frames: Channel[Frame] = Channel(1 if source.live else _AHEAD, newest=source.live)
        self._workers: list[_Worker] = []
        self._meter = Meter()
        self._stopping, self._ended = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._erring = threading.Lock()
        self._seconds = 0.0
        for output in outputs:
            self.add(output)

    @property
    def manifest(self) -> Manifest:
        """Of the model."""
        return self._segmenter.manifest

    def add(self, output: Output) -> None:
        """One more output; before :meth:`run`."""
        self._workers.append(_Worker(output, self._source.live, self._meter, self.stop))

    def run(self, tick: Callable[[StreamStats], None] | None = None) -> None:
        """Work until the end. Ctrl-C, or whatever else is raised on this thread, ends it in good order too.

        Args:
            tick: called about twice a second on this thread.

        Raises:
            Exception: the first that was raised in any of the threads.
        """
        decode = _Thread("decode", self._decode, self._fail)
        needed = [_Thread("inference", self._infer, self._fail)]
        window = next((worker for worker in self._workers if worker.output.on_main_thread), None)
        needed += [_Thread("output", worker.work, self._fail) for worker in self._workers if worker is not window]
        self._meter.start()
        try:
            for thread in (decode, *needed):
                thread.start()
            self._wait(needed, window, tick)
        except BaseException as error:
            self._fail(error)
        finally:
            self._finish(decode, needed, window)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End soon, from any thread: what is segmented by now is still written."""
        self._stopping.set()
        self._source.stop()
        self._frames.close(discard=True)

    def switch(self, task: Task) -> None:
        """Do another task from the next frame on; from any thread.

        Raises:
            InputError: the model was not trained for it.
        """
        self._task = self._segmenter.check_task(task)

    def stats(self) -> StreamStats:
        """How it is doing; from any thread."""
        source, meter = self._source, self._meter
        state: State = "running" if meter.frames else "opening"
        if self._ended.is_set():
            state = "ended"
        elif source.interruption:
            state = "reconnecting"
        return StreamStats(
            state=state,
            message=str(self._error or "") if state == "ended" else source.interruption,
            frames=meter.frames,
            dropped=source.dropped + self._frames.dropped,
            reconnects=source.reconnects,
            frames_per_second=0.0 if state == "ended" else meter.frames_per_second,
            age=meter.age,
            stages=meter.recent(),
            corrupt=source.corrupt,
        )

    @property
    def seconds(self) -> float:
        """Since the start, until now or the end."""
        return self._seconds if self._ended.is_set() else self._meter.elapsed

    def means(self) -> dict[str, float]:
        """Milliseconds per frame by stage, the mean over the whole stream; stages work side by side."""
        return dict(self._meter.means())

    def unwritten(self) -> dict[Output, int]:
        """Results that outputs of a live source were too slow to take."""
        return {worker.output: worker.results.dropped for worker in self._workers if worker.results.dropped}

    def _fail(self, error: BaseException) -> None:
        with self._erring:
            self._error = self._error or error
        self.stop()

    def _decode(self) -> None:
        frames = iter(self._source)
        try:
            while not self._stopping.is_set():
                start = perf_counter()
                frame = next(frames, None)
                if frame is None:
                    break
                if not self._source.live:  # there it is waiting, mostly
                    self._meter.add("decode", perf_counter() - start)
                self._frames.put(frame)
        finally:
            self._frames.close()

    def _infer(self) -> None:
        segmenter, submitted = self._segmenter, deque[tuple[Frame, Task]]()
        try:
            while True:
                if segmenter.pending < segmenter.depth:
                    # Results that are under way are not kept waiting for another frame.
                    frame = self._frames.get(timeout=0 if submitted else None)
                    if frame is not None:
                        task = self._task
                        segmenter.submit([frame.image], task)
                        submitted.append((frame, task))
                        continue
                    if not submitted:
                        return
                (result,), timings = segmenter.collect()
                frame, task = submitted.popleft()
                for stage, seconds in timings.stages.items():
                    self._meter.add(stage, seconds)
                self._meter.segmented(perf_counter() - frame.captured)
                item = Segmented(frame, result, task)
                picture = Picture(item, segmenter.manifest.classes)
                for worker in self._workers:
                    worker.results.put((item, picture))
        finally:
            for worker in self._workers:
                worker.results.close()

    def _wait(
        self, needed: "list[_Thread]", window: "_Worker | None", tick: Callable[[StreamStats], None] | None
    ) -> None:
        ticked = perf_counter()
        while True:
            if window is not None and not window.results.ended:
                window.step(_IDLE)
            elif any(thread.works for thread in needed):
                sleep(_LOOK)
            else:
                return
            if tick is not None and perf_counter() - ticked > _TICK:
                ticked = perf_counter()
                tick(self.stats())

    def _finish(self, decode: "_Thread", needed: "list[_Thread]", window: "_Worker | None") -> None:
        self.stop()
        if window is not None:
            try:
                window.finish()
            except Exception as error:
                self._fail(error)
        if not _have_ended(needed, _FINISH):
            self._fail(DeployError(f"the stream did not end within {_FINISH:g} seconds: an output or the GPU hangs"))
        _have_ended([decode], _HANGING_READ)
        self._seconds = self._meter.elapsed
        self._ended.set()


class _Thread(threading.Thread):
    """Does ``work`` and reports what it raises. A daemon: the program can end though it hangs in native code.

    Whether it works is looked at, not waited for: where Ctrl-C comes in the middle of a join, Python before 3.13 takes
    the thread for dead, and other locks may stay locked.
    """

    def __init__(self, name: str, work: Callable[[], None], fail: Callable[[BaseException], None]) -> None:
        super().__init__(name=f"stream {name}", daemon=True)
        self._work, self._report = work, fail
        self._ended = False

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._report(error)
        finally:
            self._ended = True

    @property
    def works(self) -> bool:
        return self.ident is not None and not self._ended


def _have_ended(threads: Sequence[_Thread], seconds: float) -> bool:
    """Wait for the end of all, or for so long. Ctrl-C pressed again does not leave files unfinished."""
    deadline = perf_counter() + seconds
    while any(thread.works for thread in threads):
        if perf_counter() > deadline:
            return False
        with suppress(KeyboardInterrupt):
            sleep(_LOOK)
    for thread in threads:
        if thread.ident is not None:
            thread.join()
    return True


class _Worker:
    """An output with its queue."""

    def __init__(self, output: Output, live: bool, meter: Meter, stop: Callable[[], None]) -> None:
        self.output, self._meter, self._stop = output, meter, stop
        self.results: Channel[tuple[Segmented, Picture]] = Channel(_LIVE_BACKLOG if live else _AHEAD, newest=live)

    def work(self) -> None:
        """To the end of the results."""
        try:
            while not self.results.ended:
                self.step(_IDLE)
        except BaseException:
            with suppress(DeployError, OSError):  # a consequence of the first
                self.finish()
            raise
        self.finish()

    def step(self, timeout: float) -> None:
        """Hand over the next result, if there is one in time (seconds)."""
        entry = self.results.get(timeout)
        if entry is None:
            self.output.idle()
        else:
            item, picture = entry
            start, drawn = perf_counter(), picture.seconds
            self.output.write(item, picture)
            drawing = picture.seconds - drawn
            if drawing:
                self._meter.add("draw", drawing)
            self._meter.add("write", perf_counter() - start - drawing)
        if self.output.finished:
            self.results.close(discard=True)
            self._stop()

    def finish(self) -> None:
        self.results.close(discard=True)
        self.output.close()
