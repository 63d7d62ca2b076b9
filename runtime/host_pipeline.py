"""Pre- and post-processing on the CPU, around a session of any kind."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import DeviceError
from proscale_deploy.core.native import Library
from proscale_deploy.core.types import Placement, RawOutput, Result, Task, Thresholds
from proscale_deploy.runtime.compiled.compiled_postprocess import compiled_postprocess
from proscale_deploy.runtime.compiled.frame_kernels import preprocess_host, resize_plan
from proscale_deploy.runtime.pipeline import Timings
from proscale_deploy.runtime.postprocess import postprocess
from proscale_deploy.runtime.preprocess import check_frame, place, preprocess
from proscale_deploy.runtime.session import Session, TensorRTSession

__all__ = ["HostPipeline"]


@dataclass(frozen=True)
class _Batch:
    task: Task
    placements: list[Placement]
    outputs: Callable[[], list[RawOutput]]
    """Waits for them."""
    preprocess: float
    inference: float


class HostPipeline:
    """See :class:`~proscale_deploy.runtime.pipeline.Pipeline`.

    A network on the CPU runs in ``submit``; one on a GPU runs while the CPU prepares the next batch or finishes the one
    before. What the stages take is the time that this thread spends on them.

    Args:
        session: runs the network.
        thresholds: how logits become results.
        library: libproscale_host.so, which does in less time what numpy and Pillow do; None: without it.
        note: for :attr:`name`.
    """

    def __init__(
        self, session: Session, thresholds: Thresholds, library: Library | None = None, note: str = ""
    ) -> None:
        self._session, self._thresholds, self._library, self._note = session, thresholds, library, note
        self._gpu = session if isinstance(session, TensorRTSession) else None
        self.depth = self._gpu.depth if self._gpu else 1
        self._batches: deque[_Batch] = deque()

    @property
    def name(self) -> str:
        return self._session.name + self._note

    @property
    def pending(self) -> int:
        return len(self._batches)

    def submit(self, frames: Sequence[NDArray[np.uint8]], task: Task) -> None:
        spec = self._session.manifest.input
        start = perf_counter()
        images = np.empty((len(frames), 3, spec.height, spec.width), np.float32)
        placements = [self._prepare(frame, out) for frame, out in zip(frames, images, strict=True)]
        prepared = perf_counter()
        if self._gpu and len(images) <= self._gpu.largest_batch:
            self._gpu.submit(images)
            outputs = self._gpu.collect
        else:
            outputs = _already(self._session.run(images))
        self._batches.append(_Batch(task, placements, outputs, prepared - start, perf_counter() - prepared))

    def collect(self) -> tuple[list[Result], Timings]:
        batch = self._batches.popleft()
        start = perf_counter()
        outputs = batch.outputs()
        inferred = perf_counter()
        results = [
            self._finish(raw, placement, batch.task) for raw, placement in zip(outputs, batch.placements, strict=True)
        ]
        return results, Timings(batch.preprocess, batch.inference + inferred - start, perf_counter() - inferred)

    def close(self) -> None:
        while self._batches:
            with suppress(DeviceError):  # whoever waited for results was told
                self._batches.popleft().outputs()

    def _prepare(self, frame: NDArray[np.uint8], out: NDArray[np.float32]) -> Placement:
        spec = self._session.manifest.input
        if self._library is None:
            return preprocess(frame, spec, out)[1]
        check_frame(frame)
        placement = place((frame.shape[0], frame.shape[1]), spec)
        preprocess_host(self._library, resize_plan(placement), spec, frame, out)
        return placement

    def _finish(self, raw: RawOutput, placement: Placement, task: Task) -> Result:
        classes = self._session.manifest.classes
        if self._library is None:
            return postprocess(raw, placement, classes, self._thresholds, task)
        return compiled_postprocess(self._library, raw, placement, classes, self._thresholds, task)


def _already(outputs: list[RawOutput]) -> Callable[[], list[RawOutput]]:
    return lambda: outputs
