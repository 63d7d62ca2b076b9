"""What stands between frames and results: queues batches and gives them back in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import Result, Task

__all__ = ["Pipeline", "Timings"]


@dataclass(frozen=True)
class Timings:
    """Seconds spent on one batch, by stage; on a GPU as the device measured them."""

    preprocess: float
    inference: float
    postprocess: float
    upload: float | None = None
    """Frames to the device; None where they stay on the host."""
    download: float | None = None
    """Results to the host; None where they are made there."""

    @property
    def stages(self) -> dict[str, float]:
        """Those there are, by name, in their order."""
        names = ("upload", "preprocess", "inference", "postprocess", "download")
        return {name: seconds for name in names if (seconds := getattr(self, name)) is not None}

    def __add__(self, other: "Timings") -> "Timings":
        """Of two batches together, both with or both without the stages of a device."""
        return Timings(**{name: seconds + other.stages[name] for name, seconds in self.stages.items()})

    @property
    def total(self) -> float:
        return sum(self.stages.values())


class Pipeline(Protocol):
    """Batches of frames in, results out, in the same order. One thread only.

    Between :meth:`submit` and :meth:`collect` the frames' arrays must not be changed. A call that raises leaves nothing
    of its batch behind.
    """

    @property
    def name(self) -> str:
        """What does the work, for people."""

    @property
    def depth(self) -> int:
        """How many batches may be in flight."""

    @property
    def pending(self) -> int:
        """How many are."""

    def submit(self, frames: Sequence[NDArray[np.uint8]], task: Task) -> None:
        """Queue a batch of frames (H, W, 3) uint8 BGR, each of any size; ``pending`` is below ``depth``.

        Raises:
            InputError: a frame is no such array.
            OutOfMemory: the GPU's memory is too small for it, beside those that are pending.
            DeviceError: the GPU fails.
        """

    def collect(self) -> tuple[list[Result], Timings]:
        """Wait for the oldest batch; ``pending`` is not 0.

        Raises:
            InputError: the network's outputs are unusable.
            DeviceError: the GPU fails.
        """

    def close(self) -> None:
        """Drop what is pending and free what the pipeline holds, not the session; calling twice does no harm."""
