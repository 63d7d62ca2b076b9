"""What is known of a running stream: one segmented frame, and how the stream is doing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from proscale_deploy.core.types import Result, Task
from proscale_deploy.runtime.streams.source import Frame

__all__ = ["Segmented", "State", "StreamStats"]

State = Literal["opening", "running", "reconnecting", "ended"]
"""Of the source. "reconnecting" from the moment a live source gives no frames until it gives one again."""


@dataclass(frozen=True)
class Segmented:
    """A frame and its result, at the frame's size."""

    frame: Frame
    result: Result
    task: Task


@dataclass(frozen=True)
class StreamStats:
    """A stream at one moment. Rates and latencies are those of the last seconds, counts those since the start."""

    state: State
    message: str
    """Why it is not running, for people; "" where it is."""
    frames: int
    """Segmented."""
    dropped: int
    """Decoded, but replaced by a newer frame before they were segmented; only live sources drop."""
    reconnects: int
    """Times a live source came back after it was lost or stood still."""
    frames_per_second: float
    """Segmented; 0 while nothing comes."""
    age: float
    """Seconds from the moment a frame was decoded to the moment its result was there; NaN before the first."""
    stages: Mapping[str, float]
    """Milliseconds per frame (median) by stage, of those of :data:`~proscale_deploy.runtime.streams.meter.STAGES` that
    the stream has, in their order."""
    corrupt: int = 0
    """Frames that could not be decoded, as far as OpenCV tells."""
