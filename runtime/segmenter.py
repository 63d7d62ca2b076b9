"""The whole way from frames to results, behind one object."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import Result, Task, Thresholds
from proscale_deploy.runtime.postprocess import postprocess
from proscale_deploy.runtime.preprocess import preprocess
from proscale_deploy.runtime.session import Session, open_session

__all__ = ["Segmenter", "Timings"]


@dataclass(frozen=True)
class Timings:
    """Seconds spent on one batch, by stage."""

    preprocess: float
    inference: float
    postprocess: float

    @property
    def total(self) -> float:
        return self.preprocess + self.inference + self.postprocess


class Segmenter:
    """A model and all it needs to turn frames into results::

        with Segmenter.open("model.onnx") as segmenter:
            result = segmenter(cv2.imread("street.jpg"))

    One object serves one thread.
    """

    def __init__(self, session: Session, thresholds: Thresholds | None = None) -> None:
        self.session = session
        self.thresholds = thresholds or session.manifest.thresholds

    @classmethod
    def open(cls, path: str | os.PathLike[str], thresholds: Thresholds | None = None) -> "Segmenter":
        """Open a model file.

        ``thresholds`` replace the model's own; take those of an open segmenter and ``dataclasses.replace`` some.

        Raises:
            InputError: the file is missing, or not written by proscale-deploy.
            MissingDependency: the package that runs this kind of file is not installed.
        """
        return cls(open_session(Path(path)), thresholds)

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
        task = self.check_task(task)
        if not frames:
            raise InputError("an empty batch: expected at least one frame")
        spec, classes = self.manifest.input, self.manifest.classes
        start = perf_counter()
        images = np.empty((len(frames), 3, spec.height, spec.width), np.float32)
        placements = [preprocess(frame, spec, out)[1] for frame, out in zip(frames, images, strict=True)]
        prepared = perf_counter()
        outputs = self.session.run(images)
        inferred = perf_counter()
        results = [
            postprocess(raw, placement, classes, self.thresholds, task)
            for raw, placement in zip(outputs, placements, strict=True)
        ]
        return results, Timings(prepared - start, inferred - prepared, perf_counter() - inferred)

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
        """Free what the session holds; calling twice does no harm."""
        self.session.close()

    def __enter__(self) -> "Segmenter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
