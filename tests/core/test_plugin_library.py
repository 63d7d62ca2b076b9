"""Libraries are found in the environment, for the TensorRT that is there, or where the variable says."""

import re
from pathlib import Path

import pytest

from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import PluginError
from proscale_deploy.core.plugin_library import HOST, OVERRIDE, PLUGIN, LibraryFacts, find_host, find_plugin, problem
from support.plugin_stub import compile_plugin_stub


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    found = [tmp_path / "environment", tmp_path / "user"]
    monkeypatch.setattr(plugin_library, "homes", lambda: found)
    monkeypatch.delenv(OVERRIDE, raising=False)
    return found


def library(home: Path, tensorrt: str) -> Path:
    path = home / f"tensorrt-{tensorrt}" / PLUGIN
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a library")
    return path


def test_the_newest_that_the_installed_tensorrt_can_load(homes: list[Path]) -> None:
    old, middle, new, next_major = (library(homes[0], version) for version in ("10.3", "10.9", "10.13", "11.1"))
    assert find_plugin("10.3.0") == old
    assert find_plugin("10.12.0.36") == middle
    assert find_plugin("10.13.3.9") == new
    assert find_plugin("11.4.0") == next_major
    with pytest.raises(PluginError, match=r"for TensorRT 11\.0\.1 in .*compiled for tensorrt-10\.13.*plugin build"):
        find_plugin("11.0.1")


def test_the_environment_comes_before_the_user(homes: list[Path]) -> None:
    users = library(homes[1], "10.13")
    assert find_plugin("10.13.0") == users
    assert find_plugin("10.13.0") != library(homes[0], "10.13")
    assert find_plugin("10.13.0").is_relative_to(homes[0])


def test_none(homes: list[Path]) -> None:
    with pytest.raises(PluginError, match=r"no plugin library for TensorRT 10\.3.*proscale-deploy plugin build"):
        find_plugin("10.3.0")
    assert find_host() is None


def test_the_variable_overrides(homes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(homes[0], "10.13")
    (homes[0] / HOST).touch()
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.setenv(OVERRIDE, str(mine))
    with pytest.raises(PluginError, match="which PROSCALE_PLUGIN names"):
        find_plugin("10.13.0")
    assert find_host() is None
    (mine / PLUGIN).touch()
    (mine / HOST).touch()
    assert (find_plugin("10.13.0"), find_host()) == (mine / PLUGIN, mine / HOST)
    monkeypatch.setenv(OVERRIDE, str(mine / "another.so"))
    with pytest.raises(PluginError, match=r"another\.so, which PROSCALE_PLUGIN names"):
        find_host()
    (mine / "another.so").touch()
    assert (find_plugin("9.9"), find_host()) == (mine / "another.so", mine / HOST)


def test_facts_go_round(tmp_path: Path) -> None:
    facts = LibraryFacts("0.1.0", "abc", "2026-01-01T00:00:00+00:00", "GNU 12", "13.0", "10.13.3", ("90-real", "120"))
    plugin_library.write_facts(tmp_path / PLUGIN, facts)
    assert plugin_library.read_facts(tmp_path / PLUGIN) == facts
    assert plugin_library.read_facts(tmp_path / HOST) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"architectures": [], "what": 1}'])
def test_facts_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / PLUGIN).touch()
    plugin_library.facts_file(tmp_path / PLUGIN).write_text(text)
    said = problem(tmp_path / PLUGIN)
    assert said is not None
    assert "cannot be read" in said


def test_a_library_that_was_changed(tmp_path: Path) -> None:
    path = library(tmp_path, "10.3")
    plugin_library.write_facts(path, LibraryFacts("0.1.0", plugin_library.sha256(path), "", ""))
    assert "changed" not in (problem(path) or "")
    path.write_bytes(b"something else")
    assert "changed after it was built" in (problem(path) or "")


@pytest.mark.parametrize("name", [PLUGIN, "libmine.so", HOST])
def test_kernels_alone(tmp_path: Path, name: str) -> None:
    """Compiled without TensorRT's headers: good for a host library, whatever else it is called it is no plugin."""
    library = compile_plugin_stub(tmp_path, plugin=False).rename(tmp_path / name)
    said = problem(library)
    if name == HOST:
        assert said is None
    else:
        assert said is not None
        assert re.search(r"holds the kernels alone, .*: proscale-deploy plugin build makes it anew", said)


def test_a_plugin(tmp_path: Path) -> None:
    assert problem(compile_plugin_stub(tmp_path)) is None


def test_the_host_library_is_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / HOST
    library.write_bytes(b"")
    monkeypatch.setenv(OVERRIDE, str(library))
    assert plugin_library.plugins() == []
    assert find_host() == library
