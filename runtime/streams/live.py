"""Cameras and network streams: always the newest frame, and back by themselves when they are lost.

Native code that reads a camera or a network can hang for ever. So every connection has a thread of its own that is
watched from outside: where no frame comes in time, it is abandoned, and another connection is made.
"""

import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter, sleep

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import DeviceError, InputError
from proscale_deploy.runtime.streams.capture import OPEN_TIMEOUT, READ_TIMEOUT, Capture
from proscale_deploy.runtime.streams.channel import Channel
from proscale_deploy.runtime.streams.source import Frame, Source
from proscale_deploy.runtime.streams.uri import Uri

__all__ = ["LiveSource", "Patience", "waits"]

_ATTEMPTS = 10
"""Reads in a row without a picture after which a stream counts as lost; fewer were damaged pictures."""
_PAUSE = 0.01
"""Seconds between such reads."""
_NO_PICTURE = "no picture in it could be decoded; does it send keyframes, and the headers of its codec?"
"""Why a connection ended that never gave one."""
_MOST_HANGING = 8
"""Abandoned connections still in native code, each with its thread and memory."""


@dataclass(frozen=True)
class Patience:
    """Seconds that a live source waits."""

    opening: float = OPEN_TIMEOUT + READ_TIMEOUT
    """For the first frame of a connection."""
    stall: float = READ_TIMEOUT
    """For any other."""
    first_retry: float = 0.5
    """Before the first new connection; twice as long before each further one."""
    last_retry: float = 10.0
    """Before any."""


def waits(patience: Patience) -> Iterator[float]:
    """Seconds to wait before each attempt, growing to a limit, each up to a fifth shorter or longer: many that lost the
    same server shall not come back all at once.
    """
    wait = patience.first_retry
    while True:
        yield wait * random.uniform(0.8, 1.2)
        wait = min(2 * wait, patience.last_retry)


class _Connection:
    """Opens and reads a capture in a thread of its own, until there is no more or nobody wants it any more."""

    def __init__(self, connect: Callable[[], Capture]) -> None:
        self.frames: Channel[tuple[NDArray[np.uint8], float]] = Channel(1, newest=True)
        """Pictures (H, W, 3) BGR with the time of decoding."""
        self.capture: Capture | None = None
        self.ending = ""
        """Why no more frames come."""
        self.corrupt = 0
        self._connect, self._abandoned = connect, False
        self.thread = threading.Thread(target=self._run, name="live source", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.capture = self._connect()
        except Exception as error:  # whatever it is, another attempt is made later
            self.ending = str(error)
            self.frames.close()
            return
        try:
            self._read(self.capture)
        except Exception as error:
            self.ending = str(error)
        finally:
            self.frames.close()
            self.capture.release()

    def _read(self, capture: Capture) -> None:
        failed, seen = 0, False
        while not self._abandoned and failed < _ATTEMPTS:
            image = capture.read()
            if image is None:
                failed += 1
                sleep(_PAUSE)
                continue
            self.frames.put((image, perf_counter()))
            self.corrupt, failed, seen = self.corrupt + failed, 0, True
        self.ending = "the stream ended" if seen else _NO_PICTURE

    def abandon(self) -> None:
        """Let it end by itself: native code cannot be interrupted, and what it uses not be freed, from outside."""
        self._abandoned = True
        self.frames.close(discard=True)


class LiveSource(Source):
    """What ``connect`` opens, for ever: a stream that ends, fails or stands still is opened again.

    Frames are dropped to the newest. Opened at once, so that a wrong address is told before anything else is done.

    Raises:
        InputError: the first connection gives no frame.
    """

    live = True

    def __init__(self, uri: Uri, connect: Callable[[], Capture], patience: Patience | None = None) -> None:
        self._uri, self._connect, self._patience = uri, connect, patience or Patience()
        self._stopped = threading.Event()
        self._hanging: list[_Connection] = []
        self._past_dropped = self._past_corrupt = 0
        self._connection = _Connection(connect)
        first = self._connection.frames.get(self._patience.opening)
        if first is None or self._connection.capture is None:
            self._connection.abandon()
            why = self._connection.ending or f"no picture within {self._patience.opening:g} seconds"
            raise InputError(why if str(uri) in why else f"cannot read {uri}: {why}")
        self._first: tuple[NDArray[np.uint8], float] | None = first
        self.size = first[0].shape[:2]
        """(height, width) of the first frame; it may change."""
        super().__init__((), None, self._connection.capture.fps)

    @property
    def stem(self) -> str:
        return self._uri.stem

    @property
    def description(self) -> str:
        decoder = self._connection.capture.decoder if self._connection.capture else "nothing"
        rate = f" at {self.fps:.4g} frames per second" if self.fps else ""
        return f"{self._uri}: live, {self.size[1]}x{self.size[0]}{rate}, decoded by {decoder}"

    def __iter__(self) -> Iterator[Frame]:
        start, count = perf_counter(), 0
        self._past_dropped = -self._connection.frames.dropped  # while something else was prepared
        while not self._stopped.is_set():
            # The one that told the size is old by now, but where nothing has come since it is the newest.
            taken, self._first = self._connection.frames.get(0) or self._first, None
            taken = taken or self._connection.frames.get(self._patience.stall)
            self._count()
            if self._stopped.is_set():
                return
            if taken is None:
                self._reconnect()
                continue
            image, captured = taken
            seconds = max(0.0, captured - start)
            yield Frame(image, f"{self.stem}_{count:06d}", count, count, seconds, captured)
            count += 1

    def stop(self) -> None:
        self._stopped.set()
        self._connection.frames.close(discard=True)

    def close(self) -> None:
        self.stop()
        self._connection.abandon()
        self._connection.thread.join(timeout=1)

    def _count(self) -> None:
        self.dropped = self._past_dropped + self._connection.frames.dropped
        self.corrupt = self._past_corrupt + self._connection.corrupt

    def _reconnect(self) -> None:
        """Replace the connection by one that gives frames, however long it takes, unless stopped."""
        self.interruption = self._connection.ending or f"no picture for {self._patience.stall:g} seconds"
        self._abandon()
        for wait in waits(self._patience):
            if self._stopped.wait(wait):
                return
            self._connection = _Connection(self._connect)
            if self._stopped.is_set():  # before stop() could see this connection
                return
            self._first = self._connection.frames.get(self._patience.opening)
            if self._stopped.is_set():
                return
            if self._first is not None:
                self.reconnects += 1
                self.interruption = ""
                return
            why = self._connection.ending or f"no picture within {self._patience.opening:g} seconds"
            self.interruption = why
            self._abandon()

    def _abandon(self) -> None:
        self._past_dropped, self._past_corrupt = self.dropped, self.corrupt
        self._connection.abandon()
        self._hanging = [old for old in (*self._hanging, self._connection) if old.thread.is_alive()]
        if len(self._hanging) > _MOST_HANGING:
            raise DeviceError(
                f"{self._uri}: {len(self._hanging)} attempts to read it hang in its driver or decoder; "
                "start the program again"
            )
