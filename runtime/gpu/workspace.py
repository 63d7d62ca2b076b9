"""Memory on the GPU that frames and results need, beside what the network needs; it stays from batch to batch."""

from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import Placement
from proscale_deploy.runtime.gpu.cuda import Buffer, Event, Stream
from proscale_deploy.runtime.gpu.lane import Lane
from proscale_deploy.runtime.pipeline import Timings

__all__ = ["NamedBuffers", "Tables", "Workspace"]


class NamedBuffers:
    """Buffers by name; they stay for the next image, and grow where it needs more."""

    def __init__(self) -> None:
        self._buffers: dict[str, Buffer] = {}

    def reserve(self, name: str, size: int) -> Buffer:
        """A buffer of ``size`` bytes at least."""
        buffer = self._buffers.setdefault(name, Buffer())
        buffer.reserve(size)
        return buffer

    def free(self) -> None:
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()


@dataclass(frozen=True)
class _Events:
    """Events of one batch, in their order; those of the network lie between, and are the lane's."""

    begun: Event
    uploaded: Event
    checked: Event
    """The mask logits are known to be finite, or not."""
    received: Event
    """The class logits are on the host."""
    resumed: Event
    counted: Event
    labelled: Event
    downloaded: Event


class Workspace:
    """What one lane has for its batches. Made and freed within :meth:`Device.current`."""

    def __init__(self, lane: Lane, largest: int) -> None:
        self.lane, self.stream = lane, lane.stream
        with ExitStack() as stack:
            events = []
            for _ in fields(_Events):
                events.append(Event())
                stack.callback(events[-1].free)
            self.events = _Events(*events)
            self.nonfinite = Buffer(4 * largest)
            """One uint32 for each image."""
            stack.callback(self.nonfinite.free)
            self.images = [NamedBuffers() for _ in range(largest)]
            for buffers in self.images:
                stack.callback(buffers.free)
            self._resources = stack.pop_all()

    def timings(self) -> Timings:
        """Of the batch that is done."""
        events, lane = self.events, self.lane
        return Timings(
            upload=events.uploaded.seconds_since(events.begun),
            preprocess=lane.started.seconds_since(events.uploaded),
            inference=lane.finished.seconds_since(lane.started),
            postprocess=events.checked.seconds_since(lane.finished) + events.labelled.seconds_since(events.resumed),
            download=events.received.seconds_since(events.checked) + events.downloaded.seconds_since(events.labelled),
        )

    def free(self) -> None:
        self._resources.close()


class Tables:
    """Copies on the device of tables that belong to a placement; the ``most`` used last are kept.

    ``most`` must be greater than the number of those that work in flight may be using.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffers: OrderedDict[tuple[str, Placement], Buffer] = OrderedDict()

    def address(self, kind: str, placement: Placement, table: NDArray[np.generic], stream: Stream) -> int:
        """Where the table is; it is copied at the first time, and that is waited for: other streams use it too."""
        key = kind, placement
        if key not in self._buffers:
            while len(self._buffers) >= self._most:
                self._buffers.popitem(last=False)[1].free()
            self._buffers[key] = _copied(table, stream)
        self._buffers.move_to_end(key)
        return self._buffers[key].address

    def free(self) -> None:
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()


def _copied(table: NDArray[np.generic], stream: Stream) -> Buffer:
    buffer = Buffer(table.nbytes)
    try:
        stream.send(buffer, table)
        stream.wait()
    except BaseException:
        buffer.free()
        raise
    buffer.unpin()
    return buffer
