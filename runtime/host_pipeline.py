"""Pre- and post-processing on the CPU, around a session of any kind."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import Placement, RawOutput, Result, Task, Thresholds
from proscale_deploy.runtime.pipeline import Timings
from proscale_deploy.runtime.postprocess import postprocess
from proscale_deploy.runtime.preprocess import preprocess
from proscale_deploy.runtime.session import Session

__all__ = ["HostPipeline"]


@dataclass(frozen=True)
class _Batch:
    task: Task
    placements: list[Placement]
    outputs: list[RawOutput]
    preprocess: float
    inference: float


class HostPipeline:
    """See :class:`~proscale_deploy.runtime.pipeline.Pipeline`. The network runs in ``submit``."""

    depth = 1

    def __init__(self, session: Session, thresholds: Thresholds) -> None:
        self._session, self._thresholds = session, thresholds
        self._batches: deque[_Batch] = deque()

    @property
    def name(self) -> str:
        return self._session.name

    @property
    def pending(self) -> int:
        return len(self._batches)

    def submit(self, frames: Sequence[NDArray[np.uint8]], task: Task) -> None:
        spec = self._session.manifest.input
        start = perf_counter()
        images = np.empty((len(frames), 3, spec.height, spec.width), np.float32)
        placements = [preprocess(frame, spec, out)[1] for frame, out in zip(frames, images, strict=True)]
        prepared = perf_counter()
        outputs = self._session.run(images)
        self._batches.append(_Batch(task, placements, outputs, prepared - start, perf_counter() - prepared))

    def collect(self) -> tuple[list[Result], Timings]:
        batch = self._batches.popleft()
        start = perf_counter()
        results = [
            postprocess(raw, placement, self._session.manifest.classes, self._thresholds, batch.task)
            for raw, placement in zip(batch.outputs, batch.placements, strict=True)
        ]
        return results, Timings(batch.preprocess, batch.inference, perf_counter() - start)

    def close(self) -> None:
        self._batches.clear()
