"""The way of a TensorRT build, against a stand-in for its Python module that has the names of each version, and no GPU.

What the stand-in knows of 10.3, 10.13 and 11.1 was read from the sources of their bindings: a call that one of them
does not have fails here. That TensorRT does what it is told cannot be seen without one.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from proscale_deploy.core.errors import BuildError, DeployError, InputError, MissingDependency, PluginError
from proscale_deploy.core.sidecar import Sidecar, file_sha256, read_sidecar
from proscale_deploy.export import build_process
from proscale_deploy.export.build_request import BuildRequest
from proscale_deploy.export.engine import BuildOptions, build_engine
from support.engine_model import CRITICAL, OPERATOR, engine_model, write_engine_model
from support.fake_gpu import FakeGpu
from support.plugin_stub import compile_plugin_stub
from support.tensorrt_api import load

VERSIONS = ("10.3.0", "10.13.3.9", "11.1.0.5")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def plugin_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_plugin_stub(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_engine_model(tmp_path / "m.onnx", np.float16)


def build(model: Path, **options: Any) -> Sidecar:
    return build_engine(model, model.with_suffix(".engine"), BuildOptions("tensorrt", **options), lambda doing: None)


@pytest.mark.parametrize("version", VERSIONS)
def test_with_the_plugin(
    version: str, fake: FakeGpu, model: Path, plugin_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.version(version)
    monkeypatch.setenv("PROSCALE_PLUGIN", str(plugin_library))
    sidecar = build(model, batch=(1, 2, 4), workspace=1 << 30, optimization_level=4)

    assert fake.calls("load_library") == [[str(plugin_library)]]
    assert fake.calls("create_network") == [[["STRONGLY_TYPED"]]]
    assert fake.calls("parse") == [[[], ["", "proscale"]]]  # no function body, and the node is there
    assert fake.calls("set_shape") == [["image", [1, 3, 16, 24], [2, 3, 16, 24], [4, 3, 16, 24]]]
    assert fake.calls("set_memory_pool_limit") == [["WORKSPACE", 1 << 30]]
    assert fake.calls("clear_flag") == [["TF32"]]
    assert fake.calls("set_flag") == []
    assert fake.calls("build") == [[{"profiling_verbosity": "DETAILED", "builder_optimization_level": 4}]]

    engine = model.with_suffix(".engine")
    assert read_sidecar(engine) == sidecar
    assert sidecar.onnx_sha256 == file_sha256(model)
    assert sidecar.backend_version == version
    assert sidecar.plugin is not None
    assert sidecar.plugin.sha256 == file_sha256(plugin_library)
    assert sidecar.precision.evidence == "engine inspector"
    assert sidecar.precision.critical == sidecar.precision.in_file == {"FP16": len(CRITICAL) + 1}
    assert sidecar.manifest.precision == "fp16"
    left = {path.name for path in model.parent.iterdir()}
    assert left == {"m.onnx", "m.engine", "m.engine.json", "calls", "cache"}


@pytest.mark.parametrize("version", VERSIONS)
def test_without_the_plugin(version: str, fake: FakeGpu, model: Path) -> None:
    fake.version(version)
    sidecar = build(model, plugin=False, hardware_compatibility="ampere-plus", version_compatible=True)
    assert fake.calls("load_library") == []
    assert fake.calls("parse") == [[[], [""]]]
    assert fake.calls("set_flag") == [["VERSION_COMPATIBLE"]]
    assert fake.calls("build")[0][0]["hardware_compatibility_level"] == "AMPERE_PLUS"
    assert sidecar.plugin is None
    assert sidecar.precision.in_file == {"FP16": len(CRITICAL)}


def test_a_model_without_the_operator_needs_no_plugin(fake: FakeGpu, tmp_path: Path) -> None:
    model = engine_model()
    kept = [node for node in model.graph.node if node.name not in (OPERATOR, "/Cast_classes")]
    kept[-1].output[0] = "class_logits"
    del model.graph.node[:]
    model.graph.node.extend(kept)
    del model.graph.output[0]
    onnx.save(model, tmp_path / "m.onnx")
    assert build(tmp_path / "m.onnx").plugin is None


def test_what_10_3_lacks_is_told(fake: FakeGpu, model: Path) -> None:
    assert "SAME_COMPUTE_CAPABILITY" not in load("10.3.0")["HardwareCompatibilityLevel"]
    with pytest.raises(BuildError, match=r"TensorRT 10.3.0 has no hardware compatibility same-compute-capability; use"):
        build(model, plugin=False, hardware_compatibility="same-compute-capability")
    fake.version("10.13.3.9")
    build(model, plugin=False, hardware_compatibility="same-compute-capability")


def test_timing_cache_is_kept(fake: FakeGpu, model: Path, tmp_path: Path) -> None:
    build(model, plugin=False)
    (file,) = (tmp_path / "cache" / "proscale-deploy").iterdir()
    assert file.name == "tensorrt-10.3.0-no-gpu.timing"
    assert file.read_bytes() == b"measured"
    build(model, plugin=False)
    file.write_bytes(b"of another GPU")
    build(model, plugin=False)
    file.write_bytes(b"damaged")
    build(model, plugin=False)
    given = [content for content, ignore_mismatch in fake.calls("set_timing_cache") if not ignore_mismatch]
    assert given == ["", "measured", "of another GPU", "", ""]


def test_a_cache_that_cannot_be_written_costs_no_build(fake: FakeGpu, model: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    build(model, plugin=False)


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        ("no GPU", "TensorRT makes no builder here, as on a machine without an NVIDIA GPU"),
        (
            "parser refuses",
            r"in module pixel_decoder.transformer.encoder.layers.0.self_attn: .*Plugin not found.*--no-pl",
        ),
        ("out of memory", r"could not build the engine \(Error Code 2: OutOfMemory .*the GPU's memory is too small"),
        ("killed", r"the build was killed while building engine, 1 of 2, as the system does when memory runs out, \d"),
        ("crash", r"TensorRT crashed while building engine, 1 of 2 \(SIGSEGV\)"),
        ("builds FP32", r"2 of 2 convolutions and matrix products that are FP16 in the file were built in FP32"),
    ],
)
def test_failures_are_sentences_and_leave_nothing(fake: FakeGpu, model: Path, mood: str, message: str) -> None:
    fake.mood(mood)
    engine = model.with_suffix(".engine")
    engine.write_bytes(b"of yesterday")
    with pytest.raises(BuildError, match=message):
        build(model, plugin=False)
    assert engine.read_bytes() == b"of yesterday"
    assert {path.name for path in model.parent.iterdir()} <= {"m.onnx", "m.engine", "calls", "cache"}


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        ("library refused", "TensorRT 10.3.0 does not load it; build it again: proscale-deploy plugin build"),
        ("no creator", "it registers no plugin ProScaleMSDeformAttn of version 1"),
    ],
)
def test_plugins_that_do_not_fit(
    fake: FakeGpu, model: Path, plugin_library: Path, monkeypatch: pytest.MonkeyPatch, mood: str, message: str
) -> None:
    monkeypatch.setenv("PROSCALE_PLUGIN", str(plugin_library))
    fake.mood(mood)
    with pytest.raises(PluginError, match=message):
        build(model)


def test_kernels_alone_are_no_plugin(
    fake: FakeGpu, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    monkeypatch.setenv("PROSCALE_PLUGIN", str(library := compile_plugin_stub(folder, plugin=False)))
    with pytest.raises(PluginError, match=rf"^{library}: it holds the kernels alone, .* plugin build .*, --no-plugin "):
        build(model)
    assert fake.calls("build") == []


def test_no_plugin_library(fake: FakeGpu, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROSCALE_PLUGIN", str(model.parent / "none.so"))
    with pytest.raises(PluginError, match=r"no plugin library at .*none.so, which PROSCALE_PLUGIN names"):
        build(model)


def test_a_file_that_is_not_of_the_type_it_names(fake: FakeGpu, tmp_path: Path) -> None:
    model = write_engine_model(tmp_path / "m.onnx", np.float32, precision="fp16")
    with pytest.raises(BuildError, match=r"the file calls itself fp16, but none of its 2 .* is FP16; export it again"):
        build(model, plugin=False)


def test_tensorrt_is_not_installed(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ModuleNotFoundError('tensorrt', name='tensorrt')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match=r"--backend tensorrt needs tensorrt, .*proscale-deploy\[tensorrt\]"):
        build(model)


def test_tensorrt_does_not_load(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match=r"tensorrt, which is installed but does not load \(libnvinfer.so.10: "):
        build(model)


def test_too_little_memory(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_process, "available_memory", lambda: 400_000_000)
    with pytest.raises(BuildError, match=r"takes about 0.7 GB of memory, 0.4 GB are free: close other programs"):
        build(model)


def test_available_memory_is_that_of_the_machine_at_most() -> None:
    available = build_process.available_memory()
    assert available is not None
    assert 0 < available <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + (1 << 40)  # and swap space


def test_a_full_disk_is_named(fake: FakeGpu, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the output, or that of the temporary files."""
    request = BuildRequest("/dev/full", "tensorrt", False, (1, 1, 1), None, 3, "none", False, ())
    with model.open("rb") as graph, pytest.raises(InputError, match=r"engine, \d+ MB, to /dev: No space .* --output"):
        build_process.run_build(request, graph, lambda doing: None)
    monkeypatch.setattr(tempfile, "TemporaryFile", partial(open, "/dev/full", "w+b"))
    with pytest.raises(InputError, match=f"temporary files to {tempfile.gettempdir()}: No space left.* TMPDIR=FOLDER"):
        build(model, plugin=False)


def test_progress_is_told(fake: FakeGpu, model: Path) -> None:
    told: list[str] = []
    build_engine(model, model.with_suffix(".engine"), BuildOptions("tensorrt", plugin=False), told.append)
    said = [doing for doing in dict.fromkeys(told) if doing != "starting"]
    assert said == ["reading the model", "tensorrt 10.3.0", "parsing", "building engine, 1 of 2", "inspecting"]


def test_ctrl_c_ends_the_child(fake: FakeGpu, model: Path) -> None:
    fake.mood("hangs")
    children: list[int] = []

    def tell(doing: str) -> None:
        if doing.startswith("building"):
            children.extend(_children())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(model, model.with_suffix(".engine"), BuildOptions("tensorrt", plugin=False), tell)
    assert len(children) == 1
    assert not _runs(children[0])
    assert not model.with_suffix(".engine").exists()


def test_a_child_ends_when_its_parent_is_killed(fake: FakeGpu, model: Path) -> None:
    fake.mood("hangs")
    code = (
        "import sys; from pathlib import Path; from proscale_deploy.export.engine import *\n"
        "build_engine(Path(sys.argv[1]), Path(sys.argv[2]), BuildOptions('tensorrt', plugin=False), lambda doing: None)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    arguments = [sys.executable, "-c", code, str(model), str(model.with_suffix(".engine"))]
    parent = subprocess.Popen(arguments, env=environment)
    try:
        _wait_for(lambda: fake.calls("build"))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _wait_for(lambda: fake.calls("cancelled"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": (4, 2, 1)}, "smallest <= best <= largest"),
        ({"batch": (0, 1, 1)}, "smallest <= best <= largest"),
        ({"workspace": 0}, "expected a positive workspace"),
        ({"optimization_level": 6}, "from 0 to 5, found 6"),
        ({"targets": ("8.6",)}, "targets are for tensorrt-rtx"),
        ({"version_compatible": True}, "cannot hold the plugin, .*--no-plugin"),
        ({"backend": "tensorrt-rtx", "hardware_compatibility": "ampere-plus"}, "no compatibility modes"),
        ({"backend": "tensorrt-rtx", "version_compatible": True, "plugin": False}, "no compatibility modes"),
    ],
)
def test_options_that_nobody_has(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BuildOptions(**{"backend": "tensorrt"} | options)


def test_the_model_is_not_overwritten(tmp_path: Path) -> None:
    model = write_engine_model(tmp_path / "m.engine")
    with pytest.raises(InputError, match="would replace the input"):
        build_engine(model, model, BuildOptions("tensorrt"), lambda doing: None)


def test_errors_of_the_child_are_ours() -> None:
    error = build_process._error("MissingDependency", "text of it")
    assert isinstance(error, DeployError)
    assert isinstance(error, MissingDependency)
    assert str(error) == "text of it"


def _children() -> list[int]:
    threads = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children")
    found = map(int, threads.read_text().split())
    return [pid for pid in found if "build_child" in Path(f"/proc/{pid}/cmdline").read_text()]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_for(condition: Any) -> None:
    for _ in range(300):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("waited for half a minute in vain")
