"""A camera that does as it is told, in place of OpenCV's."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.streams.live import LiveSource, Patience
from proscale_deploy.runtime.streams.uri import Uri
from support.color_model import picture

QUICK = Patience(opening=5, stall=1.5, first_retry=0.02, last_retry=0.05)
"""Not so quick that a busy machine looks like a camera that hangs."""
CAMERA = Uri.parse("rtsp://user:secret@camera/1")

Step = NDArray[np.uint8] | str | None
"""A picture; None: one that cannot be decoded; "hang": a read that does not come back while the camera is there."""


class Camera:
    """Reads one step per frame time. After the last step it gives nothing, like a stream that has ended."""

    decoder = "a stand-in"
    length = None

    def __init__(self, steps: Iterator[Step], fps: float = 0.0) -> None:
        self.fps = fps or None
        self._steps, self._due = steps, time.perf_counter()
        self.gone = threading.Event()
        self.released = threading.Event()

    def read(self) -> NDArray[np.uint8] | None:
        if self.fps:
            # As a camera does: on time, however long ago the last picture was asked for.
            self._due = max(self._due + 1 / self.fps, time.perf_counter())
            time.sleep(max(0.0, self._due - time.perf_counter()))
        step = next(self._steps, None)
        if isinstance(step, str):
            self.gone.wait(20)
            return None
        return step

    def release(self) -> None:
        assert not self.released.is_set()
        self.released.set()


def street(count: int | None = None, height: int = 120, width: int = 180) -> Iterator[Step]:
    """A car that moves; for ever by default."""
    for index in itertools.count() if count is None else range(count):
        yield picture(height, width, car=index % (width - height // 3))


def live(*cameras: Camera, patience: Patience = QUICK) -> LiveSource:
    """A source that finds these cameras one after the other, then none."""
    return LiveSource(CAMERA, connector(cameras), patience)


def connector(cameras: Sequence[Camera]) -> Callable[[], Camera]:
    left = iter(cameras)

    def connect() -> Camera:
        camera = next(left, None)
        if camera is None:
            raise InputError(f"cannot open {CAMERA}: nobody there")
        return camera

    return connect
