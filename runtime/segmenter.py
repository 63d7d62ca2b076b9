"""The whole way from frames to results, behind one object."""

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError, OutOfMemory, PluginError
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.native import Library
from proscale_deploy.core.plugin_library import find_host, problem
from proscale_deploy.core.types import Result, Task, Thresholds
from proscale_deploy.runtime.gpu.device_pipeline import DevicePipeline, find_kernels
from proscale_deploy.runtime.host_pipeline import HostPipeline
from proscale_deploy.runtime.pipeline import Pipeline, Timings
from proscale_deploy.runtime.session import Session, TensorRTSession, open_session

__all__ = ["Segmenter", "Timings"]


class Segmenter:
    """A model and all it needs to turn frames into results::

        with Segmenter.open("model.onnx") as segmenter:
            result = segmenter(cv2.imread("street.jpg"))

    Where ``depth`` is above 1, frames that are submitted before the results of earlier ones are collected take less
    time together: copies and work of neighbours overlap. One object serves one thread.
    """

    def __init__(self, session: Session, thresholds: Thresholds | None = None) -> None:
        self.session = session
        self.thresholds = thresholds or session.manifest.thresholds
        self._pipeline = _pipeline(session, self.thresholds)
        self._is_short = False
        """Of memory, for batches in flight beside each other."""
        self._collected: deque[tuple[list[Result], Timings]] = deque()
        """What was finished before its time, to make room."""

    @classmethod
    def open(cls, path: str | os.PathLike[str], thresholds: Thresholds | None = None) -> "Segmenter":
        """Open a model file.

        ``thresholds`` replace the model's own; take those of an open segmenter and ``dataclasses.replace`` some.

        Raises:
            InputError: the file is missing, or not written by proscale-deploy.
            MissingDependency: the package that runs this kind of file is not installed.
        """
        session = open_session(Path(path))
        try:
            return cls(session, thresholds)
        except BaseException:
            session.close()
            raise

    @property
    def name(self) -> str:
        """What does the work, for people."""
        note = ", one batch at a time, as the GPU's memory is too small for two" if self._is_short else ""
        return self._pipeline.name + note

    @property
    def manifest(self) -> Manifest:
        return self.session.manifest

    def __call__(self, frame: NDArray[np.uint8], task: Task | None = None) -> Result:
        """Segment one frame (H, W, 3) uint8 BGR, of any size; the result is at the frame's own size.

        ``task`` is by default the first of the model's tasks. A :class:`~proscale_deploy.core.types.Panoptic` is
        returned for "panoptic", Instances for "instance", Semantic for "semantic".

        Raises:
            InputError: the frame is no such array, the model was not trained for the task, or its outputs are unusable.
        """
        return self.batch([frame], task)[0]

    def batch(self, frames: Sequence[NDArray[np.uint8]], task: Task | None = None) -> list[Result]:
        """Segment frames, each of any size, in one run of the network. Raises as calling the segmenter does."""
        return self.timed(frames, task)[0]

    def timed(self, frames: Sequence[NDArray[np.uint8]], task: Task | None = None) -> tuple[list[Result], Timings]:
        """:meth:`batch`, and how long each stage took."""
        if self.pending:
            raise InputError(f"batches pending: {self.pending}; collect them before another is segmented at once")
        self.submit(frames, task)
        return self.collect()

    @property
    def depth(self) -> int:
        """How many batches may be in flight: 2 where copies and work overlap, else 1.

        It falls to 1 when the GPU's memory turns out to be too small for a second one.
        """
        return 1 if self._is_short else self._pipeline.depth

    @property
    def pending(self) -> int:
        """How many batches are submitted and not collected."""
        return len(self._collected) + self._pipeline.pending

    def submit(self, frames: Sequence[NDArray[np.uint8]], task: Task | None = None) -> None:
        """Queue a batch for :meth:`collect`; on the CPU the network runs at once.

        The frames' arrays must not be changed until then. What raises is not queued.

        Raises:
            InputError: as calling the segmenter does, or ``depth`` batches are pending.
            DeviceError: the GPU fails, or its memory is too small for the batch alone.
        """
        task = self.check_task(task)
        if not frames:
            raise InputError("an empty batch: expected at least one frame")
        if self.pending >= self.depth:
            raise InputError(f"batches pending: {self.pending}, as many as fit; collect one first")
        try:
            self._pipeline.submit(frames, task)
        except OutOfMemory:
            if not self._pipeline.pending:
                raise
            self._collected.append(self._pipeline.collect())
            self._is_short = True
            self._pipeline.submit(frames, task)

    def collect(self) -> tuple[list[Result], Timings]:
        """Results of the oldest batch submitted, as :meth:`batch` gives them; waits for them.

        Raises:
            InputError: nothing is pending, or the network's outputs are unusable: that batch is gone.
            DeviceError: the GPU fails; that batch is gone, too.
        """
        if not self.pending:
            raise InputError("no batch is pending: submit one first")
        return self._collected.popleft() if self._collected else self._pipeline.collect()

    def check_task(self, task: Task | None) -> Task:
        """The task to do, by default the model's first.

        Raises:
            InputError: the model was not trained for it.
        """
        tasks = self.thresholds.tasks
        if task is not None and task not in tasks:
            raise InputError(f"this model was trained for {', '.join(tasks)}, not for {task}; choose one of its tasks")
        return task or tasks[0]

    def close(self) -> None:
        """Free what the session holds, and drop what is pending; calling twice does no harm."""
        self._collected.clear()
        try:
            self._pipeline.close()
        finally:
            self.session.close()

    def __enter__(self) -> "Segmenter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _pipeline(session: Session, thresholds: Thresholds) -> Pipeline:
    """All on the GPU where the network is, if there are kernels for it, else around the network on the CPU."""
    note = ""
    if isinstance(session, TensorRTSession):
        try:
            return DevicePipeline(session, thresholds, find_kernels(session))
        except PluginError as error:
            note = f", frames and masks on the CPU ({error})"
    host = find_host()
    library = Library(host) if host and problem(host) is None else None
    return HostPipeline(session, thresholds, library, note)
