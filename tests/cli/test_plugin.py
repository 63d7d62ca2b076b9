"""``plugin build`` compiles and installs, or says what is missing; ``plugin info`` tells what is there."""

import json
import shutil
import time
from pathlib import Path

import pytest

from proscale_deploy import __version__, cli
from proscale_deploy.core import machine, plugin_library
from proscale_deploy.core.gpu import Gpu
from proscale_deploy.export import plugin_build

Said = tuple[object, str, str]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is installed here but what a test installs."""
    monkeypatch.delenv(plugin_library.OVERRIDE, raising=False)
    monkeypatch.setattr(plugin_library, "homes", lambda: [tmp_path / "home"])
    return tmp_path / "home"


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Said:
    with pytest.raises(SystemExit) as caught:
        cli.main(["plugin", *map(str, arguments)])
    return caught.value.code, *capsys.readouterr()


def needs_tools() -> None:
    if machine.cmake() is None or machine.cxx_compiler() is None:
        pytest.skip("needs cmake and a C++ compiler")


def test_build_and_info(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    needs_tools()
    headers = machine.tensorrt_headers()
    if machine.cuda_compiler() is None or headers is None:
        pytest.skip("needs nvcc and TensorRT's headers")
    status, out, err = run(capsys, "build", "--arch", "90", "--headers", headers.path)
    assert (status, err) == (0, "")
    assert "compiling src/deform_attn.cu" in out
    library = home / f"tensorrt-{headers.version}" / plugin_library.PLUGIN
    assert f"{library}: " in out
    assert sorted(file.name for file in home.rglob("*") if file.is_file()) == [
        "libproscale_host.so",
        "libproscale_host.so.json",
        "libproscale_plugin.so",
        "libproscale_plugin.so.json",
    ]
    facts = json.loads(plugin_library.facts_file(library).read_text())
    assert facts["version"] == __version__
    assert facts["architectures"] == ["90-real"]
    assert facts["tensorrt"].startswith(f"{headers.version}.")

    status, out, _ = run(capsys, "info")
    assert status == 0
    assert out.count("loads, and is as it was built") == 2
    assert plugin_library.sha256(library) in out
    changed = library.read_bytes() + b"x"
    library.unlink()  # it is loaded: writing into it would pull the ground from under this process
    library.write_bytes(changed)
    status, out, _ = run(capsys, "info")
    assert status == 1
    assert "changed after it was built" in " ".join(out.split())


def test_the_host_library_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_tools()
    monkeypatch.setattr(machine, "cuda_compiler", lambda: None)
    output = tmp_path / "mine"
    status, out, err = run(capsys, "build", "--host-only", "--output", output)
    assert (status, err) == (0, "")
    assert f"{output / plugin_library.HOST}: " in out
    assert "note" not in out

    # With no more than that there is no plugin; a copy under its name loads, and has no function of a plugin.
    monkeypatch.setenv(plugin_library.OVERRIDE, str(output))
    status, out, _ = run(capsys, "info")
    assert status == 1
    assert out.startswith("no plugin library; to compile it: proscale-deploy plugin build")
    assert "loads, and is as it was built" in out
    monkeypatch.setattr("proscale_deploy.core.native.__version__", "9.9.9")
    shutil.copy(output / plugin_library.HOST, output / plugin_library.PLUGIN)
    status, out, _ = run(capsys, "info")
    assert status == 1
    assert f"built from version {__version__}, expected 9.9.9" in " ".join(out.split())


def test_info_of_nothing(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    status, out, err = run(capsys, "info")
    assert (status, err) == (1, "")
    assert str(home) in out


def test_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *arguments: str) -> str:
        monkeypatch.setattr(machine, name, lambda: None)
        status, out, err = run(capsys, "build", *arguments)
        assert (status, out, err.count("\n")) == (1, "", 1)
        return err

    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))
    monkeypatch.setattr(machine, "cuda_compiler", lambda: machine.Tool(Path("nvcc"), "13.0"))
    assert "pip install cmake" in refuse("cmake", "--host-only")
    monkeypatch.setattr(machine, "cmake", lambda: machine.Tool(Path("cmake"), "3.22"))
    assert "apt install g++" in refuse("cxx_compiler", "--host-only")
    assert "not with its Python wheels" in refuse("cxx_compiler")
    assert "--host-only" in refuse("cuda_compiler")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--arch", "sm_90"), 2, "is not a list of compute capabilities; for instance 87,90"),
        (("--arch", ""), 2, "is not a list of compute capabilities"),
        (("--host-only", "--arch", "90"), 1, "--host-only compiles nothing that"),
    ],
)
def test_wrong_arguments(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, words: str
) -> None:
    code, _, err = run(capsys, "build", *arguments)
    assert code == status
    assert words in err


def test_architectures_that_nvcc_does_not_know(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho sm_87; echo sm_100; echo sm_90\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(machine, "cuda_compiler", lambda: machine.Tool(nvcc, "13.0"))
    status, out, err = run(capsys, "build", "--arch", "90a,999", "--headers", tmp_path)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "does not know the compute capability 999; it knows 87, 90, 100: pass some of these to --arch" in err


def test_a_variable_that_points_nowhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugin_library.OVERRIDE, str(tmp_path / "nowhere"))
    assert run(capsys, "info") == (
        1,
        "",
        f"error: no plugin library at {tmp_path}/nowhere, which PROSCALE_PLUGIN names: correct or unset the variable\n",
    )


def test_a_failed_compilation_shows_the_compilers_words(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_tools()
    lists = "cmake_minimum_required(VERSION 3.22)\nproject(x LANGUAGES CXX)\nadd_library(x SHARED broken.cpp)\n"
    (tmp_path / "CMakeLists.txt").write_text(lists)
    (tmp_path / "broken.cpp").write_text("int f() { return this_is_not_there; }\n")
    monkeypatch.setattr(plugin_build, "_sources", lambda: tmp_path)
    status, _, err = run(capsys, "build", "--host-only", "--output", tmp_path / "out")
    assert status == 1
    assert err.startswith("error: the plugin could not be compiled:\n")
    assert "this_is_not_there" in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_architectures_are_those_of_the_gpus_that_nvcc_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho sm_87; echo sm_90\n")
    nvcc.chmod(0o755)
    tool = machine.Tool(nvcc, "12.6")
    for here, chosen in ((["87"], ["87"]), (["90", "87", "90"], ["87", "90"]), ([], []), (["90", "120"], [])):
        gpus = [Gpu("", f"{name[:-1]}.{name[-1]}", 0) for name in here]
        monkeypatch.setattr(plugin_build, "gpus", lambda gpus=gpus: gpus)
        assert plugin_build._of_this_machine(tool) == chosen


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


def test_the_compiler_does_not_outlive_the_command(tmp_path: Path) -> None:
    """Stopped while it compiles, the command ends its tools."""

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    duration = f"100.{tmp_path.stat().st_ino}"
    command = ["sh", "-c", f"sleep {duration} & echo line; wait"]
    with pytest.raises(KeyboardInterrupt):
        plugin_build._run(command, stop)
    for _ in range(100):  # the orphan takes a moment to die
        if duration.encode() not in b"".join(map(command_line, Path("/proc").glob("[0-9]*"))):
            return
        time.sleep(0.1)
    pytest.fail("it is still there")
