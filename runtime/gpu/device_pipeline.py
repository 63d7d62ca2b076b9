"""Pre- and post-processing on the GPU: frames go up as bytes, and only class logits and labels come down.

What is queued for a batch, on one lane of the session: the frames' copies, their preprocessing into the network's
input, the network, the copy of the class logits. The rest depends on these, and is queued when they are collected;
meanwhile the other lane works on the next batch.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import PluginError
from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.types import InputSpec, Placement, Result, Size, Task, Thresholds
from proscale_deploy.runtime.batch import CLASS_LOGITS, INPUT, MASK_LOGITS
from proscale_deploy.runtime.compiled.frame_kernels import preprocess_device, resize_plan
from proscale_deploy.runtime.compiled.mask_kernels import DeviceMasks, supports
from proscale_deploy.runtime.gpu.cuda import Buffer
from proscale_deploy.runtime.gpu.device_tasks import DEVICE_TASKS, DeviceImage, DeviceTask
from proscale_deploy.runtime.gpu.engine_session import TensorRTSession
from proscale_deploy.runtime.gpu.lane import Lane
from proscale_deploy.runtime.gpu.workspace import Tables, Workspace
from proscale_deploy.runtime.logits import MASK_STRIDE, check_class_logits, not_finite
from proscale_deploy.runtime.pipeline import Timings
from proscale_deploy.runtime.preprocess import check_frame, place
from proscale_deploy.runtime.taps import mask_plan

__all__ = ["DevicePipeline", "find_kernels"]


def find_kernels(session: TensorRTSession) -> Library:
    """A plugin library whose kernels run on the session's GPU, for whichever TensorRT it is.

    It is only called through ctypes; TensorRT's registry does not learn of it.

    Raises:
        PluginError: there is none.
    """
    manifest = session.manifest
    queries, classes, input_hw = manifest.queries, len(manifest.classes), (manifest.input.height, manifest.input.width)
    if not supports(queries, classes, _mask_hw(manifest.input), input_hw):
        raise PluginError(f"too many for the kernels: {queries} queries, {classes} classes, an input of {input_hw}")
    problem = f"there is no {plugin_library.PLUGIN}: proscale-deploy plugin build"
    for path in reversed(plugin_library.plugins()):
        try:
            library = Library(path)
            _try(library, session)
            return library
        except PluginError as error:
            problem = str(error)
    raise PluginError(problem)


def _try(library: Library, session: TensorRTSession) -> None:
    """Run the least of the kernels; whichever GPUs it was compiled for, the others were too."""
    spec, doing = session.manifest.input, f"trying {library.path}"
    plan = mask_plan(_mask_hw(spec), place((spec.height, spec.width), spec))
    with session.device.current(doing), ExitStack() as stack:
        lane = session.take_lane()
        stack.callback(session.give_back, lane)
        found = Buffer(4)
        stack.callback(found.free)
        logits, dtype = lane.address(MASK_LOGITS, 0), _dtype(lane.types[MASK_LOGITS])
        masks = DeviceMasks(library, plan, dtype, session.manifest.queries, logits=logits, tables=0)
        masks.count_nonfinite(found.address, lane.stream.handle)
        lane.stream.wait()


@dataclass(frozen=True)
class _Batch:
    workspace: Workspace
    tasks: list[DeviceTask]
    results: list[Result] = field(default_factory=list)
    """Of frames before those of the tasks, which did not fit into one batch with them."""
    spent: list[Timings] = field(default_factory=list)
    """On those frames."""


class DevicePipeline:
    """See :class:`~proscale_deploy.runtime.pipeline.Pipeline`.

    Buffers stay from batch to batch, and tables from frame to frame of a size; another size in mid-stream brings its
    own.
    """

    def __init__(self, session: TensorRTSession, thresholds: Thresholds, library: Library) -> None:
        self._session, self._thresholds, self._library = session, thresholds, library
        self.depth = session.depth
        self._batches: deque[_Batch] = deque()
        self._workspaces: dict[Lane, Workspace] = {}
        self._tables = Tables(4 * session.depth * session.largest_batch)  # a frame uses two

    @property
    def name(self) -> str:
        return f"{self._session.name}, frames and masks on the GPU"

    @property
    def pending(self) -> int:
        return len(self._batches)

    def submit(self, frames: Sequence[NDArray[np.uint8]], task: Task) -> None:
        for frame in frames:
            check_frame(frame)
        largest = self._session.largest_batch
        *parts, last = [frames[start : start + largest] for start in range(0, len(frames), largest)]
        results: list[Result] = []
        spent: list[Timings] = []
        for part in parts:
            found, timings = self._finish(self._queue(part, task))
            results += found
            spent.append(timings)
        self._batches.append(replace(self._queue(last, task), results=results, spent=spent))

    def collect(self) -> tuple[list[Result], Timings]:
        batch = self._batches.popleft()
        found, timings = self._finish(batch)
        return batch.results + found, sum(batch.spent, timings)

    def close(self) -> None:
        with self._session.device.current("closing the pipeline"), ExitStack() as stack:
            stack.callback(self._tables.free)
            for workspace in self._workspaces.values():
                stack.callback(workspace.free)
            for batch in self._batches:
                stack.callback(self._session.give_back, batch.workspace.lane)
            self._workspaces.clear()
            self._batches.clear()

    def _queue(self, frames: Sequence[NDArray[np.uint8]], task: Task) -> _Batch:
        """Queue all up to the copy of the class logits."""
        spec, count = self._session.manifest.input, len(frames)
        placements = [place((frame.shape[0], frame.shape[1]), spec) for frame in frames]
        needed = sum(_memory(frame, task, self._thresholds) for frame in frames)
        with self._session.device.current(f"segmenting a batch of {count}", needed), self._workspace() as workspace:
            lane = workspace.lane
            images = [self._image(workspace, index, placement, task) for index, placement in enumerate(placements)]
            tasks = [DEVICE_TASKS[task](image) for image in images]
            self._preprocess(workspace, frames, placements)
            lane.run(count)
            for index, image in enumerate(images):
                image.masks.count_nonfinite(workspace.nonfinite.address + 4 * index, lane.stream.handle)
            workspace.events.checked.record(lane.stream)
            lane.stream.fetch(workspace.nonfinite, (count,), np.uint32)
            lane.download(CLASS_LOGITS, count)
            workspace.events.received.record(lane.stream)
        return _Batch(workspace, tasks)

    @contextmanager
    def _workspace(self) -> Iterator[Workspace]:
        """One that nobody uses, with its lane. If the block fails, its memory is freed: it may be why there is too
        little, and another batch may need less."""
        with self._session.lane() as lane:
            if lane not in self._workspaces:
                self._workspaces[lane] = Workspace(lane, self._session.largest_batch)
            try:
                yield self._workspaces[lane]
            except BaseException:
                lane.stream.drain()
                self._workspaces.pop(lane).free()
                raise

    def _image(self, workspace: Workspace, index: int, placement: Placement, task: Task) -> DeviceImage:
        lane, thresholds, manifest = workspace.lane, self._thresholds, self._session.manifest
        masks_first = task != "semantic" or thresholds.resize_masks_first
        plan = mask_plan(_mask_hw(manifest.input), placement, masks_first)
        masks = DeviceMasks(
            self._library,
            plan,
            _dtype(lane.types[MASK_LOGITS]),
            manifest.queries,
            logits=lane.address(MASK_LOGITS, index),
            tables=self._tables.address(f"masks {masks_first}", placement, plan.tables, lane.stream),
        )
        return DeviceImage(
            masks=masks,
            queries=manifest.queries,
            output_hw=placement.source_hw,
            buffers=workspace.images[index],
            stream=lane.stream,
            classes=manifest.classes,
            thresholds=thresholds,
        )

    def _preprocess(
        self, workspace: Workspace, frames: Sequence[NDArray[np.uint8]], placements: Sequence[Placement]
    ) -> None:
        """From frames to the rows of the network's input."""
        stream, lane, spec = workspace.stream, workspace.lane, self._session.manifest.input
        plans = [resize_plan(placement) for placement in placements]
        tables = [self._tables.address("resize", plan.placement, plan.tables, stream) for plan in plans]
        uploaded = [
            buffers.reserve("frame", frame.nbytes) for buffers, frame in zip(workspace.images, frames, strict=False)
        ]
        workspace.events.begun.record(stream)
        for buffer, frame in zip(uploaded, frames, strict=True):
            stream.send(buffer, frame)
        workspace.events.uploaded.record(stream)
        for index, (plan, table, buffer) in enumerate(zip(plans, tables, uploaded, strict=True)):
            preprocess_device(
                self._library,
                plan,
                spec,
                _dtype(lane.types[INPUT]),
                frame=buffer.address,
                pitch=3 * plan.placement.source_hw[1],
                tables=table,
                output=lane.address(INPUT, index),
                stream=stream.handle,
            )

    def _finish(self, batch: _Batch) -> tuple[list[Result], Timings]:
        """Wait for the class logits, and go from there to the results."""
        workspace, tasks = batch.workspace, batch.tasks
        stream, events = workspace.stream, workspace.events
        with self._session.device.current(f"segmenting a batch of {len(tasks)}"):
            try:
                events.received.wait()
                logits = workspace.lane.rows(CLASS_LOGITS, len(tasks)).astype(np.float32)
                self._check_logits(workspace, logits)
                events.resumed.record(stream)
                for task, class_logits in zip(tasks, logits, strict=True):
                    task.count(class_logits)
                events.counted.record(stream)
                events.counted.wait()
                for task in tasks:
                    task.label()
                events.labelled.record(stream)
                for task in tasks:
                    task.download()
                events.downloaded.record(stream)
                events.downloaded.wait()
                return [task.result() for task in tasks], workspace.timings()
            finally:
                self._session.give_back(workspace.lane)

    def _check_logits(self, workspace: Workspace, logits: NDArray[np.float32]) -> None:
        for index, class_logits in enumerate(logits):
            check_class_logits(class_logits, self._session.manifest.classes)
            if count := int(workspace.nonfinite.host((len(logits),), np.uint32)[index]):
                size = workspace.lane.row_size(MASK_LOGITS) // workspace.lane.types[MASK_LOGITS].itemsize
                raise not_finite(MASK_LOGITS, count, size)


def _mask_hw(spec: InputSpec) -> Size:
    return spec.height // MASK_STRIDE, spec.width // MASK_STRIDE


def _dtype(dtype: np.dtype[Any]) -> DType:
    return DType.HALF if dtype == np.float16 else DType.FLOAT


def _memory(frame: NDArray[np.uint8], task: Task, thresholds: Thresholds) -> int:
    """Bytes on the GPU for a frame and its result, about."""
    pixels = frame.shape[0] * frame.shape[1]
    per_pixel = {"panoptic": 6, "semantic": 8, "instance": thresholds.max_instances // 8 + 1}
    return int(frame.nbytes + pixels * per_pixel[task])
