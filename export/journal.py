"""What a long run has finished, kept on disk line by line, so that a stopped run goes on where it was."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from proscale_deploy.core.errors import InputError

__all__ = ["Journal"]


class Journal:
    """A file of JSON lines: first the key, that is all that the results depend on, then one entry per finished piece.

    ``entries`` holds what an earlier run of the same key has left. ``changed`` names what in the key differs where the
    file is of another run; it is then started anew. A run that finishes nothing leaves no file.

    Raises:
        InputError: the file cannot be written, or is no journal: it is not overwritten.
    """

    def __init__(self, path: Path, key: dict[str, Any]) -> None:
        self.path = path
        self._empty = True
        self.entries: list[dict[str, Any]] = []
        self.changed: tuple[str, ...] = ()
        key = json.loads(json.dumps(key))  # as it will be read back: lists for tuples
        try:
            kept = self._read(key)
            self._file = path.open("r+b" if kept else "wb", buffering=0)
            self._file.truncate(kept)
            self._file.seek(kept)
            if not kept:
                self._write(key)
            self._empty = not self.entries
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); give another --output") from error

    def append(self, entry: dict[str, Any]) -> None:
        """Keep one entry; it is with the system when this returns.

        Raises:
            InputError: the disk is full, or fails. What was kept before stays.
        """
        try:
            self._write(entry)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); make room, and the same command goes on from there"
            ) from error
        self._empty = False

    def discard(self) -> None:
        """All is done: delete the file."""
        self._empty = True
        self.close()

    def close(self) -> None:
        """Keep the file for the next run if it holds anything."""
        self._file.close()
        if self._empty:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, entry: dict[str, Any]) -> None:
        left = memoryview(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        while left:  # on a disk that is nearly full a part is written
            left = left[self._file.write(left) :]

    def _read(self, key: dict[str, Any]) -> int:
        """Take over the entries of a file of the same key; gives its length up to the last whole line, else 0."""
        if not self.path.exists():
            return 0
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # a run that was killed may leave half a line
        if not whole:
            return 0
        try:
            found, *entries = map(json.loads, whole.splitlines())
            self.changed = tuple(sorted(name for name in found.keys() | key.keys() if found.get(name) != key.get(name)))
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"{self.path}: not a file of a stopped run; move it away, or give another --output"
            ) from error
        if self.changed:
            return 0
        self.entries = entries
        return len(whole)
