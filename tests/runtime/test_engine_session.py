"""The session of engines, against stand-ins for TensorRT and pycuda, and no GPU.

The stand-ins have the names of TensorRT 10.3, 10.13 and 11.1 and of pycuda 2026.1, run the network in ONNX Runtime only
when somebody waits for it, and refuse what CUDA refuses: work without a current context, memory freed twice. How fast a
GPU is, and whether TensorRT's numbers are right, is for tests/gpu.
"""

import dataclasses
import gc
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from proscale_deploy.core.errors import DeviceError, EngineMismatch, InputError, MissingDependency, PluginError
from proscale_deploy.core.sidecar import BuiltPlugin, file_sha256, sidecar_path
from proscale_deploy.runtime.gpu import engine_session
from proscale_deploy.runtime.session import open_session
from support.color_model import (
    HEIGHT,
    MANIFEST,
    WIDTH,
    write_attending_model,
    write_color_model,
    write_half_model,
)
from support.engine_checks import check, images
from support.fake_gpu import FakeGpu
from support.plugin_stub import compile_plugin_stub

VERSIONS = ("10.3.0", "10.13.3.9", "11.1.0.5")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(tmp_path, monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_color_model(tmp_path / "m.onnx")


@pytest.fixture(scope="session")
def plugin_libraries(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    one, other = (compile_plugin_stub(tmp_path_factory.mktemp(name), name) for name in ("one", "other"))
    return one, other


def plugin(library: Path) -> BuiltPlugin:
    return BuiltPlugin("ProScaleMSDeformAttn", "1", file_sha256(library))


@pytest.mark.parametrize("version", VERSIONS)
def test_numbers(fake: FakeGpu, model: Path, version: str) -> None:
    fake.version(version)
    with open_session(fake.engine(model)) as session:
        assert session.manifest == MANIFEST
        assert session.name == f"TensorRT {version}, Orin"
        for seed, batch in enumerate((1, 4, 2)):
            check(session, images(batch, seed))
    assert fake.calls("deserialize") == [[False]]
    assert [shape[0] for (shape,) in fake.calls("execute")] == [1, 4, 2]


@pytest.mark.parametrize(
    ("profile", "batch", "runs"), [((1, 2, 4), 9, [4, 4, 1]), ((2, 2, 2), 1, [2]), ((2, 3, 3), 4, [3, 2])]
)
def test_batches_beyond_the_profile(
    fake: FakeGpu, model: Path, profile: tuple[int, int, int], batch: int, runs: list[int]
) -> None:
    with open_session(fake.engine(model, profile)) as session:
        check(session, images(batch))
    assert [shape[0] for (shape,) in fake.calls("execute")] == runs


def test_an_engine_with_fp16_inputs_and_outputs(fake: FakeGpu, tmp_path: Path) -> None:
    with open_session(fake.engine(write_half_model(tmp_path / "m.onnx"))) as session:
        check(session, images(3), 2e-2)


def test_results_stay_what_they_are(fake: FakeGpu, model: Path) -> None:
    with open_session(fake.engine(model)) as session:
        (first,) = session.run(images())
        kept = first.mask_logits.copy()
        session.run(images(4, seed=1))
    np.testing.assert_array_equal(first.mask_logits, kept)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"backend_version": "10.2.0"}, "built with tensorrt 10.2.0, installed is 10.3.0"),
        ({"compute_capability": "8.9", "gpu": "L4"}, r"built on 8.9 \(L4\), this GPU has compute capability 8.7"),
        ({"platform": "windows-AMD64"}, "built for windows-AMD64, this is [^;]*"),
        ({"plugin": BuiltPlugin("P", "1", "b" * 64)}, "built with the plugin P bbbbbbbbbbbb, here is none"),
    ],
)
def test_engines_of_other_machines_are_not_loaded(
    fake: FakeGpu,
    model: Path,
    facts: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROSCALE_PLUGIN", str(tmp_path))  # none
    rebuild = r"proscale-deploy build M.onnx --output m.engine --backend tensorrt"
    with pytest.raises(EngineMismatch, match=f"m.engine: {message}; build it again here: {rebuild}"):
        open_session(fake.engine(model, **facts))
    assert fake.calls("deserialize") == fake.calls("load_library") == []


def test_an_engine_that_changed_is_not_loaded(fake: FakeGpu, model: Path) -> None:
    engine = fake.engine(model)
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(EngineMismatch, match=r"m.engine: changed since it was built"):
        open_session(engine)
    sidecar_path(engine).unlink()
    with pytest.raises(EngineMismatch, match=r"m.engine.json is missing"):
        open_session(engine)
    assert fake.calls("deserialize") == []


def test_the_plugin_is_registered_once(
    fake: FakeGpu, tmp_path: Path, plugin_libraries: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = plugin_libraries
    engine = fake.engine(write_attending_model(tmp_path / "m.onnx"), plugin=plugin(one))
    monkeypatch.setenv("PROSCALE_PLUGIN", str(one))
    with open_session(engine) as first, open_session(engine) as second:
        (a,), (b,) = first.run(images()), second.run(images())
    np.testing.assert_array_equal(a.mask_logits, b.mask_logits)
    assert fake.calls("load_library") == [[str(one)]]

    monkeypatch.setenv("PROSCALE_PLUGIN", str(other))
    with pytest.raises(EngineMismatch, match="built with the plugin ProScaleMSDeformAttn"):
        open_session(engine)
    engine = fake.engine(tmp_path / "m.onnx", plugin=plugin(other))
    with pytest.raises(PluginError, match="this process has loaded another plugin library before; start it again"):
        open_session(engine)


def test_a_version_compatible_engine_may_bring_its_runtime(fake: FakeGpu, model: Path) -> None:
    engine = fake.engine(model, version_compatible=True)
    fake.version("10.13.3.9")
    with open_session(engine) as session:
        check(session, images())
    assert fake.calls("deserialize") == [[True]]


def test_everything_is_freed(fake: FakeGpu, model: Path) -> None:
    engine = fake.engine(model)
    for _ in range(20):
        with open_session(engine) as session:
            session.run(images())
            assert fake.driver.LIVE
        session.close()
        assert not fake.driver.LIVE
        assert not fake.driver.STACK
    assert len(fake.driver.RETAINED) == 1
    with pytest.raises(InputError, match="the session is closed; open the model file again"):
        session.run(images())


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        ({"tensorrt": "no runtime"}, r"TensorRT 10.3.0 failed while opening .*m.engine \(CUDA initialization failure"),
        ({"tensorrt": "damaged"}, r"failed while opening .*m.engine \(Serialization assertion magicTag failed"),
        (
            {"tensorrt": "no memory for a context"},
            r"the GPU's memory ran out while opening .*about 50 MB needed, 300 of",
        ),
        (
            {"cuda": "out of memory"},
            r"the GPU's memory ran out while opening .*about 50 MB needed, 300 of 8000 MB free",
        ),
        ({"cuda": "no driver"}, r"CUDA failed while opening the GPU \(cuInit failed: CUDA driver version is insuff"),
    ],
)
def test_an_opening_that_fails_leaves_nothing(fake: FakeGpu, model: Path, mood: dict[str, str], message: str) -> None:
    engine = fake.engine(model)
    fake.version("10.3.0")
    fake.mood(**mood)
    with pytest.raises(DeviceError, match=message):
        open_session(engine)
    gc.collect()  # of the error, whose frames hold what they were making
    assert not fake.driver.LIVE
    assert not fake.driver.STACK


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        (
            {"tensorrt": "refuses to run"},
            r"failed while running a batch of 2 in .*m.engine \(IExecutionContext::enqueueV3",
        ),
        (
            {"cuda": "kernel fails"},
            r"CUDA failed while running a batch of 2 in .*an illegal memory access.*start again",
        ),
    ],
)
def test_a_run_that_fails(fake: FakeGpu, model: Path, mood: dict[str, str], message: str) -> None:
    engine = fake.engine(model)
    fake.version("10.3.0")
    fake.mood(**mood)
    with open_session(engine) as session, pytest.raises(DeviceError, match=message):
        session.run(images(2))
    gc.collect()  # as above
    assert not fake.driver.LIVE
    assert not fake.driver.STACK


def test_errors_that_did_no_harm_explain_no_others(fake: FakeGpu, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_session(fake.engine(model)) as session:
        trt = sys.modules["tensorrt"]
        session._engine._log.log(trt.ILogger.Severity.ERROR, "a tactic ran out of memory")  # type: ignore[attr-defined]
        session.run(images())
        monkeypatch.setattr(trt, "MOOD", "refuses to run")
        with pytest.raises(DeviceError, match=r"failed while running a batch of 2 .*\(IExecutionContext::enqueueV3"):
            session.run(images(2))


def test_the_context_of_others_is_current_again(fake: FakeGpu, model: Path) -> None:
    others = fake.driver.Context()
    others.push()
    with open_session(fake.engine(model)) as session:
        assert [others] == fake.driver.STACK
        session.run(images())
        assert [others] == fake.driver.STACK
    assert [others] == fake.driver.STACK


@pytest.mark.parametrize("batch", [np.zeros((1, 3, WIDTH, HEIGHT), np.float32), np.zeros((1, 3, HEIGHT, WIDTH))])
def test_wrong_images(fake: FakeGpu, model: Path, batch: NDArray) -> None:
    message = rf"expected images \(batch, 3, {HEIGHT}, {WIDTH}\) float32, found .*{batch.dtype}"
    with open_session(fake.engine(model)) as session, pytest.raises(InputError, match=message):
        session.run(batch)


def test_engines_of_other_models(fake: FakeGpu, model: Path) -> None:
    with pytest.raises(InputError, match=r"the model gave class_logits \(4, 4, 4\) .*manifest says \(4, 5, 4\)"):
        open_session(fake.engine(model, manifest=dataclasses.replace(MANIFEST, queries=5)))
    graph = onnx.load(model)
    graph.graph.output.append(helper.make_tensor_value_info("size", TensorProto.INT64, [4]))
    onnx.save(graph, model)
    with pytest.raises(
        InputError, match=r"expected the input image and the outputs .*found .*size \(.*; export the mod"
    ):
        open_session(fake.engine(model))
    gc.collect()
    assert not fake.driver.LIVE


def test_without_a_gpu(fake: FakeGpu, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fake.engine(model)
    monkeypatch.setattr(engine_session, "default_gpu", lambda: None)
    with pytest.raises(DeviceError, match=r"m.engine: no NVIDIA GPU, or no driver, .* give the .onnx file"):
        open_session(engine)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx"])
@pytest.mark.parametrize("package", ["pycuda", "library"])
def test_missing_packages(
    fake: FakeGpu, model: Path, monkeypatch: pytest.MonkeyPatch, backend: Any, package: str
) -> None:
    fake.is_rtx()
    engine = fake.engine(model, backend=backend, targets=("8.7",))
    module = backend.replace("-", "_") if package == "library" else "pycuda.driver"
    monkeypatch.setitem(sys.modules, module, None)
    extra = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}[backend]
    with pytest.raises(MissingDependency, match=rf"pip install 'proscale-deploy\[{extra}\]'"):
        open_session(engine)
