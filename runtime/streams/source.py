"""Where frames come from. Here what has an end: images, a folder or glob of them, a video; what is live is in
:mod:`~proscale_deploy.runtime.streams.live`.
"""

import glob
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.image import IMAGE_SUFFIXES, read_image
from proscale_deploy.runtime.streams.capture import OpenCvCapture, open_capture
from proscale_deploy.runtime.streams.uri import Uri

__all__ = ["VIDEO_SUFFIXES", "Frame", "ImageSource", "Source", "VideoSource", "open_source"]

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
"""Usual ones, lower case, to tell what was meant; what can be read is OpenCV's to say."""

_UNKNOWN_FPS = 25.0
"""Frames per second of a video that does not say."""


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    image: NDArray[np.uint8]
    """(H, W, 3) BGR."""
    name: str
    """Unique in its source and good as a file name, without suffix: ``street``, ``clip_000041``."""
    index: int
    """0, 1, 2, ... in the order of the source."""
    image_id: int
    """For COCO files: the number that the image's name is, if all names of the source are numbers, else ``index``."""
    timestamp: float
    """Seconds since the start of a video; 0 for images."""
    captured: float = 0.0
    """When it was decoded, on the clock of :func:`time.perf_counter`; 0 where nobody decoded it."""


class Source(ABC):
    """Iterate once to get the frames, one at a time; use as a context manager to close the file.

    What went wrong on the way without ending the run is in ``skipped`` and ``warnings`` after the iteration. The other
    attributes can be read from any thread while it goes on.
    """

    live = False
    """Whether it goes on by itself: frames that nobody takes in time are dropped."""
    interruption = ""
    """Why no frames come at the moment; "" where they do."""
    reconnects = 0
    """Times it came back after it was lost or stood still."""
    corrupt = 0
    """Frames that could not be decoded, as far as OpenCV tells."""
    dropped = 0
    """Frames that were decoded and replaced by newer ones before anybody took them."""

    def __init__(self, files: Sequence[Path], length: int | None, fps: float | None) -> None:
        self.files = tuple(files)
        self.length = length
        """Frames announced; None if unknown."""
        self.fps = fps
        """None for images."""
        self.skipped: list[str] = []
        """One message for every image that could not be read."""
        self.warnings: list[str] = []

    @property
    def stem(self) -> str:
        """A file name without suffix for what is made of all of it: ``clip``, ``video0``."""
        return self.files[0].stem if self.files else "frames"

    @property
    def description(self) -> str:
        """What is read, and what reads it, for people; "" where there is nothing to say."""
        return ""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None:  # noqa: B027 (not every source has something to do)
        """End an iteration that waits for frames; from any thread."""

    def close(self) -> None:  # noqa: B027
        """Free what it holds. It must not be iterated any more."""

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(uri: str | os.PathLike[str]) -> Source:
    """Open an image file, a folder of images (not its subfolders), a glob of images, or a video file.

    What has an image's suffix is read as an image, any other file as a video.

    Raises:
        InputError: nothing is there, or no frame can be expected from it.
    """
    uri = os.fspath(uri)
    path = Path(uri)
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
        if not files:
            if videos := sorted(
                (file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES), key=_natural
            ):
                raise InputError(f"no images in folder {path}, only videos: give one video at a time, as {videos[0]}")
            raise InputError(f"no images in folder {path}: looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
        return ImageSource(sorted(files, key=_natural))
    if path.is_file():
        return ImageSource([path]) if path.suffix.lower() in IMAGE_SUFFIXES else VideoSource(path)
    if Uri.parse(uri).kind != "file":
        raise InputError(f"cannot read {Uri.parse(uri)}: expected files; only proscale-deploy predict reads streams")
    if glob.has_magic(uri):
        files = [file for name in glob.glob(uri, recursive=True) if (file := Path(name)).is_file()]
        if not files:
            raise InputError(f"no file matches {uri}")
        return ImageSource(sorted(files, key=_natural))
    raise InputError(f"no such file or folder: {uri}")


class ImageSource(Source):
    """Image files in the given order. One alone must be readable; of several, unreadable ones are skipped."""

    def __init__(self, files: Sequence[Path]) -> None:
        super().__init__(files, len(files), None)
        self.names = _names(files)

    def __iter__(self) -> Iterator[Frame]:
        numbered = all(name.isdecimal() for name in self.names)
        for index, (file, name) in enumerate(zip(self.files, self.names, strict=True)):
            try:
                image = read_image(file)
            except InputError as error:
                if len(self.files) == 1:
                    raise
                self.skipped.append(str(error))
                continue
            yield Frame(image, name, index, int(name) if numbered else index, 0.0, perf_counter())


class VideoSource(Source):
    """A video with an end, decoded by OpenCV; frames are turned upright as the file says.

    Args:
        video: a file, or what ``capture`` was opened from.
        capture: that is already open.

    Raises:
        InputError: it cannot be decoded.
    """

    def __init__(self, video: Path | Uri, capture: OpenCvCapture | None = None) -> None:
        self._uri = Uri("file", str(video)) if isinstance(video, Path) else video
        self._capture = capture or _open_file(Path(self._uri.target))
        self._reading = threading.Lock()
        files = [Path(self._uri.target)] if self._uri.kind == "file" else []
        super().__init__(files, self._capture.length, self._capture.fps or _UNKNOWN_FPS)

    @property
    def stem(self) -> str:
        return self._uri.stem

    @property
    def description(self) -> str:
        length = "" if self.length is None else f"{self.length} frames, "
        return f"{self._uri}: {length}{self.fps:.4g} per second, decoded by {self._capture.decoder}"

    def __iter__(self) -> Iterator[Frame]:
        count = 0
        while True:
            with self._reading:
                image = self._capture.read()
                seconds = self._capture.seconds
            if image is None:
                break
            yield Frame(image, f"{self.stem}_{count:06d}", count, count, seconds, perf_counter())
            count += 1
        if count == 0:
            hint = "" if self.files else "; does the server allow seeking? else download the file first"
            raise InputError(f"cannot read {self._uri}: no frame of the video could be decoded{hint}")
        if self.length is not None and count < self.length:
            self.warnings.append(
                f"{self._uri}: {self.length - count} frames fewer than announced ({count} of {self.length}); "
                "it is cut off or damaged"
            )

    def close(self) -> None:
        # OpenCV crashes where a capture is released while another thread reads; a read that hangs keeps it.
        if self._reading.acquire(timeout=1):
            self._capture.release()
            self._reading.release()


def _open_file(path: Path) -> OpenCvCapture:
    if path.stat().st_size == 0:
        raise InputError(f"cannot read {path}: an empty file")
    try:
        return open_capture(Uri("file", str(path)))
    except InputError:
        raise InputError(
            f"cannot read {path}: neither a video that OpenCV can decode (cut off, or of an unknown codec?) "
            f"nor an image ({', '.join(sorted(IMAGE_SUFFIXES))})"
        ) from None


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """img2 before img10: runs of digits compare as numbers."""
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", str(path))]


def _names(files: Sequence[Path]) -> list[str]:
    """The shortest names that tell the files apart: stem, file name, or path below the common folder."""
    by_stem = [file.stem for file in files]
    by_name = [file.name for file in files]
    if len(set(by_stem)) == len(files):
        return by_stem
    if len(set(by_name)) == len(files):
        return by_name
    common = os.path.commonpath([file.parent for file in files])
    return [str(file.relative_to(common)).replace(os.sep, "__") for file in files]
