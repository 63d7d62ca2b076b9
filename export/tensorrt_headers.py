"""TensorRT's headers: found, or taken from a repository at the tag of the installed version."""

import io
import os
import re
import subprocess
import zipfile
from pathlib import Path

from proscale_deploy.core import machine
from proscale_deploy.core.errors import PluginError

__all__ = ["SOURCES", "headers_folder"]

REPOSITORY = "https://github.com/NVIDIA/TensorRT"

SOURCES = (
    "they come with TensorRT's SDK and its Debian packages (apt install libnvinfer-headers-dev), not with its Python "
    "wheels; pass --headers FOLDER with the folder of NvInfer.h or of the unpacked SDK, or "
    f"--headers {REPOSITORY} for those of the open-source repository (a few files are fetched)"
)
"""What to do without headers."""


def headers_folder(given: str | None, scratch: Path) -> Path:
    """The folder of NvInfer.h.

    Args:
        given: a folder, or a repository as path or URL, with ``@tag`` behind it if another version is wanted than that
            of the installed package ``tensorrt``. None: what is found on this machine.
        scratch: an empty folder; headers out of a repository are put there.

    Raises:
        PluginError: there are none, or the repository has no tag for the version.
    """
    if given is None:
        found = machine.tensorrt_headers()
        if found is None:
            root = os.environ.get("TENSORRT_ROOT")
            where = f"in {root}, which TENSORRT_ROOT names" if root else "here"
            raise PluginError(f"TensorRT's headers (NvInfer.h) were not found {where}: {SOURCES}")
        return found.path
    repository, tag = _split(given)
    if _is_url(repository) or _is_repository(Path(repository)):
        return _from_repository(repository, tag, scratch)
    found = machine.tensorrt_headers_in(repository)
    if found is None:
        raise PluginError(f"no NvInfer.h in {repository} or its folder include: {SOURCES}")
    return found.path


def _split(given: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"(.+)@(v\d[^/@]*)", given)
    return (match[1], match[2]) if match and not Path(given).exists() else (given, None)


def _is_url(text: str) -> bool:
    return "://" in text or re.match(r"[\w.-]+@[\w.-]+:", text) is not None


def _is_repository(path: Path) -> bool:
    return (path / ".git").exists() or ((path / "HEAD").is_file() and (path / "objects").is_dir())


def _from_repository(repository: str, tag: str | None, scratch: Path) -> Path:
    if tag is None:
        version = machine.package("tensorrt").version
        if version is None:
            raise PluginError(
                f"which of the versions in {repository}? the package tensorrt is not installed here to say so: "
                f"append a tag, --headers {repository}@v10.3.0"
            )
        tag = _tag_for(version, repository)
    if _is_url(repository):
        sparse = ("--quiet", "--depth", "1", "--filter=blob:none", "--sparse", "--branch", tag)
        _git("-c", "advice.detachedHead=false", "clone", *sparse, "--", repository, str(scratch / "clone"))
        _git("-C", str(scratch / "clone"), "sparse-checkout", "set", "include")
        folder = scratch / "clone"
    else:
        archive = _git("-C", repository, "archive", "--format=zip", tag, "include")
        zipfile.ZipFile(io.BytesIO(archive)).extractall(scratch)
        folder = scratch
    found = machine.tensorrt_headers_in(folder)
    if found is None:
        raise PluginError(f"{repository} holds no include/NvInfer.h at {tag}: is it a repository of {REPOSITORY}?")
    return found.path


def _tag_for(version: str, repository: str) -> str:
    """The tag of a release. The repository skips some patches and leaves out the number of others: v10.11, v10.13.3."""
    major, minor, patch = ([int(number) for number in re.findall(r"\d+", version)] + [0, 0])[:3]
    listed = _git("ls-remote", "--tags", "--refs", "--", repository).decode()
    tags = {
        tuple(map(int, match[2].split("."))): match[1]
        for match in re.finditer(r"refs/tags/(v(\d+\.\d+(?:\.\d+)?))$", listed, re.M)
    }
    same = [numbers for numbers in tags if numbers[:2] == (major, minor)]
    fitting = [numbers for numbers in same if numbers <= (major, minor, patch)]
    if not fitting:
        have = ", ".join(tags[numbers] for numbers in same or sorted(tags)[-5:]) or "none"
        raise PluginError(
            f"{repository} has no tag for TensorRT {version} (it has {have}): append the tag of the nearest older "
            f"release, --headers {repository}@TAG, or pass a folder of headers"
        )
    return tags[max(fitting)]


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise PluginError("git is not installed, which fetches the headers: apt install git") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        raise PluginError(f"git could not fetch the headers: {said[-1] if said else 'no reason given'}") from error
