"""Frames and masks on a GPU that is not there: results equal those of the CPU; tests/gpu has the real kernels."""

import dataclasses
import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from proscale_deploy.core.errors import DeviceError, InputError
from proscale_deploy.core.types import Panoptic, Result, Size, Task, Thresholds
from proscale_deploy.runtime import segmenter as segmenter_module
from proscale_deploy.runtime.compiled.mask_kernels import DeviceMasks
from proscale_deploy.runtime.gpu import device_pipeline
from proscale_deploy.runtime.gpu.device_pipeline import find_kernels
from proscale_deploy.runtime.image import write_image
from proscale_deploy.runtime.segmenter import Segmenter
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.source import open_source
from proscale_deploy.runtime.streams.stats import Segmented
from proscale_deploy.runtime.streams.stream import Stream
from support import fake_kernels
from support.color_model import MANIFEST, picture, write_color_model, write_half_model
from support.engine_checks import check_result, noise, on_cpu
from support.fake_gpu import FakeGpu
from support.plugin_stub import compile_plugin_stub

TASKS: tuple[Task, ...] = ("panoptic", "instance", "semantic")
SEMANTIC_ONLY = Thresholds(tasks=("semantic",), resize_masks_first=False)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    fake_kernels.install(monkeypatch)
    return FakeGpu(tmp_path, monkeypatch)


@pytest.fixture
def engine(fake: FakeGpu, tmp_path: Path) -> Path:
    return fake.engine(write_color_model(tmp_path / "m.onnx"))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("frame", [picture(), picture(64, 96), picture(300, 140), noise(), noise(31, 500)])
def test_results_are_those_of_the_cpu(engine: Path, frame: NDArray[np.uint8], task: Task) -> None:
    with Segmenter.open(engine) as segmenter:
        assert segmenter.name == "TensorRT 10.3.0, Orin, frames and masks on the GPU"
        check_result(segmenter(frame, task), on_cpu(frame, task))


def test_scores_resized_instead_of_masks(engine: Path) -> None:
    with Segmenter.open(engine, SEMANTIC_ONLY) as segmenter:
        check_result(segmenter(noise()), on_cpu(noise(), "semantic", SEMANTIC_ONLY))


def test_fp16_inputs_and_outputs(fake: FakeGpu, tmp_path: Path) -> None:
    with Segmenter.open(fake.engine(write_half_model(tmp_path / "m.onnx"))) as segmenter:
        found = segmenter(picture(), "panoptic")
    assert isinstance(found, Panoptic)
    expected: Any = on_cpu(picture(), "panoptic")
    assert np.count_nonzero(found.map != expected.map) < 0.01 * found.map.size


@pytest.mark.parametrize("task", TASKS)
def test_sizes_and_batches_change_in_mid_stream(engine: Path, task: Task) -> None:
    """Frames of a batch have sizes of their own; 9 do not fit into the engine's largest batch, 4, at once."""
    sizes: list[Size] = [
        (120, 180),
        (64, 96),
        (200, 100),
        (50, 333),
        (40, 40),
        (121, 180),
        (77, 78),
        (9, 9),
        (120, 180),
    ]
    frames = [noise(*size, seed) for seed, size in enumerate(sizes)]
    with Segmenter.open(engine) as segmenter:
        for batch in (frames[:1], frames[1:4], frames, frames[:2]):
            results, timings = segmenter.timed(batch, task)
            assert list(timings.stages) == ["upload", "preprocess", "inference", "postprocess", "download"]
            assert min(timings.stages.values()) > 0
            for result, frame in zip(results, batch, strict=True):
                check_result(result, on_cpu(frame, task))


def test_frames_that_are_views(engine: Path) -> None:
    wide = noise(100, 300)
    with Segmenter.open(engine) as segmenter:
        for view in (wide[10:, 40:200], wide[::-1, ::-1]):
            check_result(segmenter(view, "panoptic"), on_cpu(np.ascontiguousarray(view), "panoptic"))


def test_two_batches_in_flight(engine: Path, fake: FakeGpu) -> None:
    """Their results come in order, though the second was queued before the first was waited for; tasks may differ."""
    frames = [picture(car=column) for column in (10, 40, 70, 100)]
    with Segmenter.open(engine) as segmenter:
        assert segmenter.depth == 2
        segmenter.submit([frames[0]], "panoptic")
        one_lane = fake.driver.OWNED["device"]
        for index, frame in enumerate(frames[1:]):
            segmenter.submit([frame], TASKS[index])
            assert segmenter.pending == 2
            assert fake.driver.OWNED["device"] > one_lane, "the second lane has memory of its own"
            with pytest.raises(InputError, match="batches pending: 2"):
                segmenter.submit([frame])
            (result,), _ = segmenter.collect()
            check_result(result, on_cpu(frames[index], TASKS[index - 1] if index else "panoptic"))
        (result,), _ = segmenter.collect()
        check_result(result, on_cpu(frames[-1], "semantic"))
        segmenter.submit([frames[0]])  # pending when it is closed
    assert not fake.driver.LIVE
    assert fake.driver.OWNED == {"device": 0, "pinned": 0}


def test_nothing_found(engine: Path) -> None:
    strict = dataclasses.replace(MANIFEST.thresholds, object_mask=1.0)
    with Segmenter.open(engine, strict) as segmenter:
        found = segmenter(picture(), "panoptic")
    assert isinstance(found, Panoptic)
    assert (found.segments, found.map.any(), found.map.shape) == ((), False, (120, 180))


def test_nothing_is_left(engine: Path, fake: FakeGpu) -> None:
    for cycle in range(20):
        with Segmenter.open(engine) as segmenter:
            for index in range(5):
                segmenter(noise(60 + cycle, 80 + index), TASKS[index % 3])
        segmenter.close()
        assert not fake.driver.LIVE
        assert fake.driver.OWNED == {"device": 0, "pinned": 0}
        assert not fake.driver.STACK


def test_memory_does_not_grow_with_sizes(engine: Path, fake: FakeGpu) -> None:
    """Tables of sizes that are gone are freed; buffers grow to the largest."""
    with Segmenter.open(engine) as segmenter:
        owned = []
        for width in range(60, 180):
            segmenter(noise(100, 240 - width), "panoptic")
            owned.append(fake.driver.OWNED["device"])
    assert max(owned[60:]) <= max(owned[:60])


def with_outputs(path: Path, value: float) -> Path:
    """A network whose bias, and with it every mask logit, is ``value``."""
    model = onnx.load(path)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(4, value, np.float32), "bias"))
    onnx.save(model, path)
    return path


def test_outputs_that_are_not_finite(fake: FakeGpu, tmp_path: Path) -> None:
    engine = fake.engine(with_outputs(write_color_model(tmp_path / "m.onnx"), np.nan))
    with Segmenter.open(engine) as segmenter:
        with pytest.raises(InputError, match=r"mask_logits hold 1536 NaN or infinite values of 1536"):
            segmenter(picture())
        assert segmenter.pending == 0


@pytest.mark.parametrize("frame", [np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), None])
def test_what_is_not_a_frame(engine: Path, frame: Any) -> None:
    with Segmenter.open(engine) as segmenter:
        with pytest.raises(InputError):
            segmenter.submit([picture(), frame])
        assert segmenter.pending == 0
        check_result(segmenter(picture()), on_cpu(picture(), "panoptic"))


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        (
            "out of memory",
            r"the GPU's memory ran out while segmenting a batch of 1: about 19 MB needed, 300 of 8000 MB",
        ),
        ("kernel fails", r"CUDA failed while segmenting a batch of 1 .*illegal memory access"),
    ],
)
def test_a_gpu_that_fails(engine: Path, fake: FakeGpu, mood: str, message: str) -> None:
    with Segmenter.open(engine) as segmenter:
        fake.mood(cuda=mood)
        with pytest.raises(DeviceError, match=message):
            segmenter(noise(1080, 1920))
        assert segmenter.pending == 0
        fake.mood()
        check_result(segmenter(picture()), on_cpu(picture(), "panoptic"))
    gc.collect()
    assert not fake.driver.LIVE


@pytest.mark.parametrize("kernels", [True, False])
def test_no_memory_for_a_second_batch_in_flight(
    fake: FakeGpu, engine: Path, kernels: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first is finished before its time, and there is one at a time from then on."""
    if not kernels:
        monkeypatch.setattr(segmenter_module, "find_kernels", find_kernels)
        monkeypatch.setenv("PROSCALE_PLUGIN", str(tmp_path))
    frames = [picture(car=column) for column in (10, 40, 70, 100)]
    with Segmenter.open(engine) as segmenter:
        segmenter.submit(frames[:1], "panoptic")
        fake.mood(cuda="out of memory")
        segmenter.submit(frames[1:2], "panoptic")
        assert (segmenter.depth, segmenter.pending) == (1, 2)
        assert segmenter.name.endswith(", one batch at a time, as the GPU's memory is too small for two")
        with pytest.raises(InputError, match="batches pending: 2"):
            segmenter.submit(frames[2:])
        check_result(segmenter.collect()[0][0], on_cpu(frames[0], "panoptic"))
        check_result(segmenter.collect()[0][0], on_cpu(frames[1], "panoptic"))
        assert segmenter.pending == 0
        for frame in frames:
            check_result(segmenter(frame), on_cpu(frame, "panoptic"))
    gc.collect()
    assert not fake.driver.LIVE


def test_a_batch_that_does_not_fit_leaves_no_memory_taken(
    fake: FakeGpu, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Segmenter.open(engine) as segmenter:
        segmenter(picture())
        owned, allocate = fake.driver.OWNED["device"], fake.driver.mem_alloc

        def limited(size: int) -> Any:
            if fake.driver.OWNED["device"] + size > owned + 3_000_000:
                raise fake.driver.MemoryError("cuMemAlloc failed: out of memory")
            return allocate(size)

        monkeypatch.setattr(fake.driver, "mem_alloc", limited)
        with pytest.raises(DeviceError, match="memory ran out"):
            segmenter(noise(720, 1000))
        assert fake.driver.OWNED["device"] <= owned + 200_000  # tables are kept
        check_result(segmenter(picture()), on_cpu(picture(), "panoptic"))


def test_tables_that_were_not_copied_are_not_used(fake: FakeGpu, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> None:
        raise fake.driver.MemoryError("cuMemHostAlloc failed: out of memory")

    with Segmenter.open(engine) as segmenter:
        with monkeypatch.context() as patch:
            patch.setattr(fake.driver, "pagelocked_empty", refuse)
            with pytest.raises(DeviceError, match="memory ran out"):
                segmenter(picture())
        check_result(segmenter(picture()), on_cpu(picture(), "panoptic"))


def test_a_gpu_that_fails_is_closed_quietly(
    fake: FakeGpu, engine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With batches in flight around the network alone."""
    monkeypatch.setattr(segmenter_module, "find_kernels", find_kernels)
    monkeypatch.setenv("PROSCALE_PLUGIN", str(tmp_path))
    segmenter = Segmenter.open(engine)
    segmenter.submit([picture()])
    segmenter.submit([picture()])
    fake.mood(cuda="kernel fails")
    segmenter.close()
    segmenter.close()
    assert segmenter.pending == 0
    gc.collect()
    assert not fake.driver.LIVE


def test_without_kernels_the_cpu_does_it(
    fake: FakeGpu, engine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Frames still overlap with the network."""
    monkeypatch.setattr(segmenter_module, "find_kernels", find_kernels)
    monkeypatch.setenv("PROSCALE_PLUGIN", str(tmp_path))
    with Segmenter.open(engine) as segmenter:
        assert segmenter.name == (
            "TensorRT 10.3.0, Orin, frames and masks on the CPU (there is no libproscale_plugin.so: proscale-deploy "
            "plugin build)"
        )
        assert segmenter.depth == 2
        frames = [picture(car=column) for column in (10, 40, 70)]
        segmenter.submit(frames[:1], "panoptic")
        segmenter.submit(frames * 2, "instance")  # more than the engine's largest batch
        check_result(segmenter.collect()[0][0], on_cpu(frames[0], "panoptic"))
        segmenter.submit(frames[2:], "semantic")
        for frame, result in zip(frames * 2, segmenter.collect()[0], strict=True):
            check_result(result, on_cpu(frame, "instance"))
        with pytest.raises(InputError):
            segmenter.submit([frames[0][0]])
        segmenter.submit(frames[:1])  # pending when it is closed
    assert not fake.driver.LIVE


def test_libraries_that_have_no_kernels(
    fake: FakeGpu, engine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(segmenter_module, "find_kernels", find_kernels)
    monkeypatch.setattr(device_pipeline, "DeviceMasks", DeviceMasks)
    monkeypatch.setenv("PROSCALE_PLUGIN", str(compile_plugin_stub(tmp_path)))
    with Segmenter.open(engine) as segmenter:
        assert "on the CPU" in segmenter.name
        assert "it has no function proscale_count_nonfinite_cuda" in segmenter.name


def test_an_opening_that_fails_leaves_nothing(
    fake: FakeGpu, engine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A GPU that fails when the kernels are tried."""
    monkeypatch.setattr(segmenter_module, "find_kernels", find_kernels)
    monkeypatch.setattr(device_pipeline, "Library", lambda path: SimpleNamespace(path=path))
    monkeypatch.setenv("PROSCALE_PLUGIN", str(compile_plugin_stub(tmp_path)))
    fake.mood(cuda="kernel fails")
    with pytest.raises(DeviceError, match=r"CUDA failed while trying .*libproscale_plugin.so"):
        Segmenter.open(engine)
    gc.collect()
    assert not fake.driver.LIVE


def run_stream(segmenter: Segmenter, folder: Path, frames: list[NDArray[np.uint8]]) -> list[Result]:
    """The frames as a stream, whose network runs in a thread of its own."""
    for index, frame in enumerate(frames):
        write_image(folder / f"{index:02}.png", frame)

    class Results(Output):
        def write(self, item: Segmented, picture: Picture) -> None:
            found.append(item.result)

        def close(self) -> None: ...

    found: list[Result] = []
    with open_source(str(folder / "*.png")) as source:
        stream = Stream(source, segmenter, "panoptic", [Results()])
        stream.run()
        assert {"upload", "inference", "download"} <= stream.means().keys()
    return found


def test_a_stream_in_a_thread_of_its_own(fake: FakeGpu, engine: Path, tmp_path: Path) -> None:
    """The session is opened and closed on this thread and used on another, with two frames in flight."""
    frames = [noise(60 + 7 * (index % 3), 90, index) for index in range(12)]
    with Segmenter.open(engine) as segmenter:
        found = run_stream(segmenter, tmp_path, frames)
    for result, frame in zip(found, frames, strict=True):
        check_result(result, on_cpu(frame, "panoptic"))
    assert not fake.driver.LIVE


def test_a_stream_with_memory_for_one_frame(fake: FakeGpu, engine: Path, tmp_path: Path) -> None:
    frames = [noise(60, 90, index) for index in range(8)]
    with Segmenter.open(engine) as segmenter:
        segmenter(frames[0], "panoptic")
        fake.mood(cuda="out of memory")
        found = run_stream(segmenter, tmp_path, frames)
        assert segmenter.depth == 1
    for result, frame in zip(found, frames, strict=True):
        check_result(result, on_cpu(frame, "panoptic"))
