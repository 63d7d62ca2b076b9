"""What is different with TensorRT-RTX, against a stand-in, and against the real library as far as it goes here."""

import ctypes
import importlib
import importlib.util
from pathlib import Path

import pytest

from proscale_deploy.core.errors import DeviceError
from proscale_deploy.runtime.session import TensorRTSession, open_session
from support.color_model import write_color_model, write_half_model
from support.engine_checks import check, images
from support.fake_gpu import FakeGpu

NAMES = ("Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache", "CudaGraphStrategy")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(tmp_path, monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_color_model(tmp_path / "m.onnx")


needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs: pip install 'proscale-deploy[rtx-build]'"
)


def test_tensorrt_rtx(fake: FakeGpu, model: Path) -> None:
    """The module is the difference, and that there are no plugins."""
    fake.version("11.1.0.5")
    fake.is_rtx()
    engine = fake.engine(model, backend="tensorrt-rtx", compute_capability=None, targets=("8.7",))
    with open_session(engine) as session:
        assert isinstance(session, TensorRTSession)
        assert session.name == "TensorRT-RTX 11.1.0.5, Orin"
        assert session.cuda_graph == "captured by TensorRT-RTX"
        for _ in range(4):
            check(session, images())
    assert fake.calls("load_library") == []
    assert fake.calls("context") == [["WHOLE_GRAPH_CAPTURE"]]
    assert fake.graphs.captures == 0


def test_what_tensorrt_rtx_compiles_is_kept(fake: FakeGpu, model: Path, tmp_path: Path) -> None:
    """Until the engine, the GPU or the version is another, or the file is damaged."""

    def run() -> list[list[bool]]:
        """What became of the caches that were there."""
        with open_session(engine) as session:
            check(session, images())
        taken = fake.calls("deserialize_cache")
        (tmp_path / "calls").unlink()
        return taken

    fake.version("11.1.0.5")
    fake.is_rtx()
    engine = fake.engine(model, backend="tensorrt-rtx", compute_capability=None, targets=("8.7",))
    assert run() == []
    (kept,) = (tmp_path / "cache" / "proscale-deploy").iterdir()
    content = kept.read_bytes()
    assert b"attention" in content
    written = kept.stat().st_mtime_ns
    assert run() == [[True]]
    assert kept.stat().st_mtime_ns == written, "nothing was new"
    kept.write_bytes(content[5:])
    assert run() == [[False]]
    assert kept.read_bytes() == content
    kept.unlink()
    kept.mkdir()  # neither read nor written
    assert run() == []

    kept.rmdir()
    fake.engine(write_half_model(model), backend="tensorrt-rtx", compute_capability=None, targets=("8.7",))
    with open_session(engine) as session:
        session.run(images())
    assert len(list(kept.parent.iterdir())) == 1
    assert not kept.exists(), "another engine, another file"


def test_tensorrt_rtx_of_the_first_version(fake: FakeGpu, model: Path) -> None:
    """Without a configuration of the runtime there are neither graphs nor a cache."""
    fake.mood(tensorrt="no runtime config")
    fake.version("11.1.0.5")
    fake.is_rtx()
    with open_session(fake.engine(model, backend="tensorrt-rtx", targets=("8.7",))) as session:
        assert isinstance(session, TensorRTSession)
        assert session.cuda_graph == "none, as TensorRT-RTX before 1.2 has none"
        for _ in range(3):
            check(session, images())
    assert fake.graphs.captures == 0


@needs_rtx
def test_tensorrt_rtx_has_what_is_called(fake: FakeGpu) -> None:
    """The stand-in has no more than is called, under the names of TensorRT's sources."""
    real = importlib.import_module("tensorrt_rtx")
    fake.is_rtx()
    stand_in = importlib.import_module("tensorrt_rtx")
    for name in NAMES:
        own = getattr(stand_in, name)
        members = {member for member in vars(own) if not member.startswith("_")}
        assert members
        assert members <= set(dir(getattr(real, name)))
    assert hasattr(real.Runtime, "engine_host_code_allowed")
    assert real.Dims((4, 3))[0] == 4
    assert tuple(real.Dims((4, 3))) == (4, 3)


@needs_rtx
def test_tensorrt_rtx_says_what_is_missing(fake: FakeGpu, model: Path) -> None:
    """The real library, as far as it goes without a GPU."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("needs a machine without NVIDIA's driver")
    version = importlib.import_module("tensorrt_rtx").__version__
    facts = {"backend": "tensorrt-rtx", "backend_version": version, "targets": ("8.7",)}
    message = r"TensorRT-RTX 1\..* failed while opening .*m.engine \(.+; update the GPU's driver"
    with pytest.raises(DeviceError, match=message):
        TensorRTSession(fake.engine(model, **facts))
