"""Writing output files: checked before the work, complete or not there after it."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from proscale_deploy.core.errors import InputError

__all__ = ["cache_folder", "check_not_input", "check_output", "replacing", "temporary_name", "using_scratch"]


def check_output(path: Path) -> None:
    """Refuse, before any work is done, an output file that could not be written at the end.

    Raises:
        InputError: the folder of ``path`` is missing or not writable, or ``path`` is itself a folder.
    """
    folder = path.parent
    if not folder.exists():
        raise InputError(f"cannot write {path}: folder {folder} does not exist; create it: mkdir -p {folder}")
    if not folder.is_dir():
        raise InputError(f"cannot write {path}: {folder} is a file, not a folder")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give a file name")
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write {path}: no permission to write in {folder}")


def check_not_input(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse, before any work is done, output files that are themselves what is read, also through links.

    Raises:
        InputError: one of ``outputs`` is one of ``inputs``.
    """
    read = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in read:
            raise InputError(f"the output would replace the input {path}; give another --output")


def cache_folder() -> Path:
    """Where the user's caches are; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "proscale-deploy")


def temporary_name(path: Path) -> Path:
    """A hidden name in the same folder (so that renaming is atomic) with the same suffix (encoders look at it)."""
    return path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; it replaces ``path`` if the block succeeds and is deleted if it fails."""
    temporary = temporary_name(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # a failed write does not say of which file
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def using_scratch() -> Iterator[None]:
    """Around what writes files of :mod:`tempfile` only: a full disk is named, and it is not that of the output.

    Raises:
        InputError: in place of an OSError of the block.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write temporary files to {tempfile.gettempdir()}: {error.strerror or error}; make room there, or "
            "name another folder: export TMPDIR=FOLDER"
        ) from error
