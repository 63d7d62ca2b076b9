"""Where frames come from: an image, a folder of images, a glob, or a video file."""

import glob
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.image import IMAGE_SUFFIXES, read_image

__all__ = ["VIDEO_SUFFIXES", "Frame", "ImageSource", "Source", "VideoSource", "open_source"]

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
"""Usual ones, lower case, to tell what was meant; what can be read is OpenCV's to say."""

_LIVE = re.compile(r"(https?|rtmps?|rtsps?|srt|tcp|udp):/|/dev/video\d")


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

    What went wrong on the way without ending the run is in ``skipped`` and ``warnings`` after the iteration.
    """

    def __init__(self, files: Sequence[Path], length: int | None, fps: float | None) -> None:
        self.files = tuple(files)
        self.length = length
        """Frames announced; None if unknown."""
        self.fps = fps
        """None for images."""
        self.skipped: list[str] = []
        """One message for every image that could not be read."""
        self.warnings: list[str] = []

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:  # noqa: B027 (not every source has something to do)
        """Nothing to close but for a video."""

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
    if _LIVE.match(uri):
        raise InputError(
            f"cannot read {uri}: live sources are not supported by this command yet; read frames with cv2.VideoCapture "
            "and call Segmenter on each"
        )
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
    """A video file, decoded by OpenCV; frames are turned upright as the file says."""

    def __init__(self, path: Path) -> None:
        if path.stat().st_size == 0:
            raise InputError(f"cannot read {path}: an empty file")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise InputError(
                f"cannot read {path}: neither a video that OpenCV can decode (cut off, or of an unknown codec?) "
                f"nor an image ({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        # Both are nonsense (negative, or NaN) where the container does not say.
        length = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        super().__init__([path], int(length) if length > 0 else None, fps if 0 < fps < 1000 else 25.0)

    def __iter__(self) -> Iterator[Frame]:
        path, count = self.files[0], 0
        while True:
            ok, image = self._capture.read()
            if not ok or image is None or image.size == 0:
                break
            seconds = max(0.0, self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
            captured = perf_counter()
            pixels = image.astype(np.uint8, copy=False)
            yield Frame(pixels, f"{path.stem}_{count:06d}", count, count, seconds, captured)
            count += 1
        if count == 0:
            raise InputError(f"cannot read {path}: no frame of the video could be decoded")
        if self.length is not None and count < self.length:
            self.warnings.append(
                f"{path}: {self.length - count} frames fewer than announced ({count} of {self.length}); "
                "the file is cut off or damaged"
            )

    def close(self) -> None:
        self._capture.release()


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
