"""CUDA graphs and batches in flight, against the stand-ins of test_engine_session.py."""

import gc
import re
from pathlib import Path

import numpy as np
import pytest

from proscale_deploy.core.errors import DeviceError, InputError
from proscale_deploy.runtime.session import TensorRTSession, open_session
from support.color_model import ColorSession, write_color_model
from support.engine_checks import check, images
from support.fake_gpu import FakeGpu

VERSIONS = ("10.3.0", "10.13.3.9", "11.1.0.5")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(tmp_path, monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_color_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_network_is_replayed_as_a_graph(fake: FakeGpu, model: Path, version: str) -> None:
    """From the second run of a batch size on; its graph is gone when the size changes."""
    fake.version(version)
    with open_session(fake.engine(model)) as session:
        assert isinstance(session, TensorRTSession)
        assert session.cuda_graph == "none yet: captured in the second run"
        launches = []
        for seed, batch in enumerate((1, 1, 1, 3, 3, 1, 1)):
            check(session, images(batch, seed))
            launches.append(fake.graphs.launches)
        assert launches == [0, 1, 2, 2, 3, 3, 4]
        assert session.cuda_graph == "replayed"
        assert "CUDA graph" not in session.name
    assert fake.graphs.captures == 3
    assert not fake.driver.LIVE


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        ("cuStreamBeginCapture_v2", r"cuStreamBeginCapture_v2: CUDA_ERROR_STREAM_CAPTURE \(900\)"),
        ("cuStreamEndCapture", r"cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE \(901\)"),
        ("cuGraphInstantiateWithFlags", r"cuGraphInstantiateWithFlags: CUDA_ERROR_STREAM_CAPTURE \(900\)"),
        ("cuGraphLaunch", r"cuGraphLaunch: CUDA_ERROR_STREAM_CAPTURE \(900\)"),
        ("TensorRT", r"TensorRT 10.3.0 failed while running .*operation not permitted when stream is capturing.*"),
    ],
)
def test_without_a_graph_the_network_is_queued_as_usual(fake: FakeGpu, model: Path, failing: str, reason: str) -> None:
    engine = fake.engine(model)
    if failing == "TensorRT":
        fake.mood(tensorrt="refuses capture")
        fake.version("10.3.0")
    fake.graphs.failing.add(failing)
    with open_session(engine) as session:
        assert isinstance(session, TensorRTSession)
        for seed in range(4):
            check(session, images(2, seed))
        assert fake.graphs.launches == 0
        assert re.fullmatch(rf"none \({reason}\)", session.cuda_graph)
        assert re.fullmatch(rf"TensorRT 10.3.0, Orin, without CUDA graph \({reason}\)", session.name)
        assert fake.graphs.begun == 1, "tried once"
    assert not fake.driver.LIVE


def test_two_batches_in_flight(fake: FakeGpu, model: Path) -> None:
    """Each on its own lane; a second lane is made when there is a second batch."""
    given = [images(2, seed) for seed in range(6)]
    truth = [ColorSession().run(batch) for batch in given]
    with open_session(fake.engine(model)) as session:
        assert isinstance(session, TensorRTSession)
        one_lane = fake.driver.OWNED["device"]
        session.submit(given[0])
        for index in range(1, 6):
            batch = given[index].copy()
            session.submit(batch)
            batch[:] = 0  # it was copied
            assert session.pending == 2
            assert fake.driver.OWNED["device"] == 2 * one_lane
            with pytest.raises(InputError, match="batches pending: 2"):
                session.run(given[0])
            found = session.collect()
            for output, other in zip(found, truth[index - 1], strict=True):
                np.testing.assert_allclose(output.mask_logits, other.mask_logits, rtol=1e-3, atol=1e-3)
        check(session, given[0])  # beside the one that is pending
        session.collect()
        with pytest.raises(InputError, match="no batch is pending"):
            session.collect()
        with pytest.raises(InputError, match="at most 4 images"):
            session.submit(images(5))
        session.submit(given[0])
        session.submit(given[1])  # pending when it is closed
    assert not fake.driver.LIVE
    assert fake.driver.OWNED == {"device": 0, "pinned": 0}


def test_one_batch_at_a_time_takes_one_lane(fake: FakeGpu, model: Path) -> None:
    with open_session(fake.engine(model)) as session:
        owned = dict(fake.driver.OWNED)
        assert owned["pinned"] == 0, "pinned when it is first needed"
        for seed in range(4):
            check(session, images(2, seed))
        assert fake.driver.OWNED["device"] == owned["device"]
        assert fake.driver.OWNED["pinned"] == owned["device"]


def test_no_memory_for_a_second_batch(fake: FakeGpu, model: Path) -> None:
    with open_session(fake.engine(model)) as session:
        assert isinstance(session, TensorRTSession)
        session.submit(images())
        fake.mood(cuda="out of memory")
        with pytest.raises(
            DeviceError, match=r"memory ran out while opening .*about 50 MB needed, 300 of 8000 MB free"
        ):
            session.submit(images())
        fake.mood()
        assert len(session.collect()) == 1
    gc.collect()
    assert not fake.driver.LIVE
