"""Headers are found in folders, or taken from a repository at the tag of the installed version."""

import os
import subprocess
from pathlib import Path

import pytest

from proscale_deploy.core import machine
from proscale_deploy.core.errors import PluginError
from proscale_deploy.export.tensorrt_headers import headers_folder

VERSIONS = ("10.3.0", "10.11", "10.13.0", "10.13.3", "11.1")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As NVIDIA/TensorRT lays out its own: a tag a release, some of three numbers and some of two."""
    folder = tmp_path_factory.mktemp("repository")
    config = ("-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "init.defaultBranch=main")

    def git(*arguments: str) -> None:
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        subprocess.run(["git", *config, *arguments], cwd=folder, check=True, capture_output=True, env=environment)

    git("init")
    (folder / "include/impl").mkdir(parents=True)
    for version in VERSIONS:
        major, minor = version.split(".")[:2]
        text = f"#define NV_TENSORRT_MAJOR {major}\n#define NV_TENSORRT_MINOR {minor}\n"
        (folder / "include/NvInferVersion.h").write_text(text)
        (folder / "include/NvInfer.h").write_text(version)
        (folder / "include/impl/more.h").write_text(version)
        (folder / "README.md").write_text(version)
        git("add", ".")
        git("commit", "-m", version)
        git("tag", f"v{version}")
    git("tag", "21.10")
    return folder


def installed(version: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "package", lambda module: machine.Package(module, version))


@pytest.mark.parametrize(
    ("version", "tag"),
    [
        ("10.3.0", "10.3.0"),
        ("10.3.0.26", "10.3.0"),
        ("10.11.0.33", "10.11"),
        ("10.13.2.6", "10.13.0"),
        ("10.13.3.9.post1", "10.13.3"),
        ("10.13.9", "10.13.3"),
        ("11.1.0.106", "11.1"),
    ],
)
def test_the_tag_of_the_installed_version(
    repository: Path, tmp_path: Path, version: str, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(version, monkeypatch)
    folder = headers_folder(str(repository), tmp_path)
    assert (folder / "NvInfer.h").read_text() == tag
    assert (folder / "impl/more.h").read_text() == tag
    assert tmp_path in folder.parents


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_tag_that_is_given(repository: Path, tmp_path: Path, scheme: str) -> None:
    folder = headers_folder(f"{scheme}{repository}@v10.13.0", tmp_path)
    assert (folder / "NvInfer.h").read_text() == "10.13.0"
    assert not list(tmp_path.rglob("impl/README.md"))


def test_a_bare_repository(repository: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run(["git", "clone", "--quiet", "--bare", repository, bare], check=True)
    (tmp_path / "scratch").mkdir()
    folder = headers_folder(f"{bare}@v11.1", tmp_path / "scratch")
    assert (folder / "NvInfer.h").read_text() == "11.1"


def test_versions_without_a_tag(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed("10.12.0", monkeypatch)
    with pytest.raises(PluginError, match=r"no tag for TensorRT 10\.12\.0 \(it has v10\.3\.0, .*@TAG"):
        headers_folder(str(repository), tmp_path)
    installed(None, monkeypatch)
    with pytest.raises(PluginError, match=r"not installed here to say so: append a tag"):
        headers_folder(str(repository), tmp_path)
    with pytest.raises(PluginError, match=r"git could not fetch the headers: .*v9"):
        headers_folder(f"{repository}@v9.9", tmp_path)


def test_folders(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    include = tmp_path / "sdk/include"
    include.mkdir(parents=True)
    (include / "NvInfer.h").touch()
    assert headers_folder(str(tmp_path / "sdk"), tmp_path) == include
    assert headers_folder(str(include), tmp_path) == include
    with pytest.raises(PluginError, match=r"no NvInfer\.h in .*/none.*--headers https://github\.com/NVIDIA/TensorRT"):
        headers_folder(str(tmp_path / "none"), tmp_path)
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path / "sdk"))
    assert headers_folder(None, tmp_path) == include
    monkeypatch.setenv("TENSORRT_ROOT", str(tmp_path))  # what is given is not passed over for what lies about
    with pytest.raises(PluginError, match=r"were not found in .*, which TENSORRT_ROOT names"):
        headers_folder(None, tmp_path)
