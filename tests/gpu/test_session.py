"""Engines built and run here, against ONNX Runtime on the CPU. The way there without a GPU: tests/runtime."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proscale_deploy.core.errors import DeviceError, EngineMismatch
from proscale_deploy.core.files import cache_folder
from proscale_deploy.core.sidecar import BackendName, file_sha256, read_sidecar, write_sidecar
from proscale_deploy.runtime.session import Session, TensorRTSession, open_session
from support.color_model import write_attending_model, write_color_model, write_half_model
from support.engine_checks import images

Build = Callable[..., Path]


@pytest.fixture
def opened() -> Iterator[Callable[[Path], Session]]:
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(open_session(path))


def check(found: Session, truth: Session, given: NDArray[np.float32], tolerance: float) -> None:
    for output, expected in zip(found.run(given), truth.run(given), strict=True):
        np.testing.assert_allclose(output.class_logits, expected.class_logits, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(output.mask_logits, expected.mask_logits, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("write", "tolerance"), [(write_color_model, 1e-3), (write_half_model, 0.1), (write_attending_model, 1e-3)]
)
def test_numbers(
    build: Build, opened: Callable[[Path], Session], write: Callable[[Path], Path], tolerance: float
) -> None:
    """Of batches in the profile, and beyond it; the plugin runs the operator where there is one."""
    engine = build(write, plugin=write is write_attending_model)
    session, truth = opened(engine), opened(engine.with_suffix(".onnx"))
    for seed, batch in enumerate((1, 4, 2, 9)):
        check(session, truth, images(batch, seed), tolerance)


def test_two_sessions_and_torch_in_one_process(
    build: Build, opened: Callable[[Path], Session], device: torch.device
) -> None:
    engine = build(write_color_model)
    tensor = torch.arange(1000.0, device=device)
    first, second, truth = opened(engine), opened(engine), opened(engine.with_suffix(".onnx"))
    for seed in range(3):
        tensor = tensor + 1
        check(first, truth, images(2, seed), 1e-3)
        check(second, truth, images(3, seed), 1e-3)
    first.close()
    check(second, truth, images(), 1e-3)
    second.close()
    assert torch.equal((tensor * 2).cpu(), (torch.arange(1000.0) + 3) * 2)


def test_two_batches_in_flight(build: Build, opened: Callable[[Path], Session]) -> None:
    """Each gets its own outputs, also when it was queued while the other ran."""
    engine = build(write_color_model)
    session, truth = opened(engine), opened(engine.with_suffix(".onnx"))
    assert isinstance(session, TensorRTSession)
    given = [images(1 + seed % 4, seed) for seed in range(40)]
    expected = [truth.run(batch) for batch in given]
    session.submit(given[0])
    for index in range(1, len(given) + 1):
        if index < len(given):
            session.submit(given[index])
        for output, other in zip(session.collect(), expected[index - 1], strict=True):
            np.testing.assert_allclose(output.class_logits, other.class_logits, rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(output.mask_logits, other.mask_logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("write", [write_color_model, write_attending_model])
def test_the_network_is_replayed_as_a_graph(
    build: Build, backend: BackendName, opened: Callable[[Path], Session], write: Callable[[Path], Path]
) -> None:
    """The plugin too, whose kernel is loaded before the capture. Sizes that change take their own graphs."""
    engine = build(write, plugin=True)
    session, truth = opened(engine), opened(engine.with_suffix(".onnx"))
    assert isinstance(session, TensorRTSession)
    for seed, batch in enumerate((1, 1, 1, 3, 3, 3, 1, 1)):
        check(session, truth, images(batch, seed), 1e-3)
    assert session.cuda_graph == ("replayed" if backend == "tensorrt" else "captured by TensorRT-RTX")
    assert "without CUDA graph" not in session.name


def test_other_threads_may_allocate_while_a_graph_is_captured(
    build: Build, backend: BackendName, opened: Callable[[Path], Session], device: torch.device
) -> None:
    stop = threading.Event()

    def allocate() -> None:
        while not stop.is_set():
            torch.empty(1 << 20, device=device)
            torch.cuda.empty_cache()

    thread = threading.Thread(target=allocate)
    thread.start()
    try:
        session = opened(build(write_color_model))
        assert isinstance(session, TensorRTSession)
        for batch in (1, 1, 2, 2, 3, 3, 4, 4):
            session.run(images(batch))
        if backend == "tensorrt":
            assert session.cuda_graph == "replayed"
    finally:
        stop.set()
        thread.join()


def test_what_tensorrt_rtx_compiles_is_kept(build: Build, backend: BackendName) -> None:
    if backend != "tensorrt-rtx":
        pytest.skip("TensorRT compiles nothing on the target")
    engine = build(write_color_model)
    for _ in range(2):
        with open_session(engine) as session:
            session.run(images())
    (kept,) = cache_folder().glob("*.rtx-kernels")
    damaged = kept.read_bytes()[:-10]
    kept.write_bytes(damaged)
    with open_session(engine) as session:
        session.run(images())
    assert kept.read_bytes() != damaged


def test_engines_that_do_not_fit_fail_in_words(build: Build) -> None:
    """What the checks cannot see is TensorRT's to refuse."""
    engine = build(write_color_model)
    sidecar = read_sidecar(engine)
    write_sidecar(engine, dataclasses.replace(sidecar, backend_version="1.0"))
    with pytest.raises(EngineMismatch, match=r"1\.0, installed is"):
        open_session(engine)
    content = bytearray(engine.read_bytes())
    content[:64] = bytes(64)  # of the header
    engine.write_bytes(content)
    write_sidecar(engine, dataclasses.replace(sidecar, engine_sha256=file_sha256(engine)))
    with pytest.raises(DeviceError, match="failed while opening"):
        open_session(engine)
