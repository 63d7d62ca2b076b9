"""Where overlays go: an image file, a folder of images, or a video file."""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import DeployError, InputError
from proscale_deploy.core.files import check_not_input, check_output, temporary_name
from proscale_deploy.runtime.image import IMAGE_SUFFIXES, write_image
from proscale_deploy.runtime.source import Frame, ImageSource, Source, VideoSource

__all__ = ["ImageSink", "Sink", "VideoSink", "open_sink", "results_folder"]

_CODECS = {
    ".avi": ("MJPG",),
    ".mkv": ("avc1", "mp4v"),
    ".mov": ("avc1", "mp4v"),
    ".mp4": ("avc1", "mp4v"),
    ".webm": ("VP80",),
}
"""Fourcc codes by suffix, best first. H.264 (avc1) plays everywhere, but OpenCV's wheels have no encoder for it. They
all have MPEG-4 part 2 (mp4v), which browsers do not play, and VP8, which they do and which takes longer to encode."""

_RESERVE = 8 << 20
"""Bytes left free on the disk, for the index at the end of a file without which it cannot be played."""


class Sink(ABC):
    """Takes frames in order; a context manager that finishes the file however the block ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """The file that is written, or the folder for several."""
        self.written = 0
        """Frames."""

    @abstractmethod
    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        """Write the picture (H, W, 3) BGR that was drawn for ``frame``."""

    def close(self) -> None:  # noqa: B027 (not every sink has something to do)
        """Images are finished as they are written."""

    def __enter__(self) -> "Sink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_sink(path: str | os.PathLike[str], source: Source) -> Sink:
    """The sink that suits the source; what is already there is replaced.

    A path with a suffix is a file: a video for a video, an image for one image. Otherwise it is a folder, made with the
    first frame if its parent is there; a video goes into it as ``NAME.mp4``, images as ``NAME.jpg``.

    Raises:
        InputError: the suffix does not suit the source, the parent folder is missing, or the source would be replaced.
    """
    as_folder, path = _is_folder(path), Path(path)
    if isinstance(source, VideoSource):
        file = path / f"{source.files[0].stem}.mp4" if as_folder else path
        targets = [_checked(file, _CODECS, "a video")]
    elif isinstance(source, ImageSource) and as_folder:
        targets = [path / f"{name}.jpg" for name in source.names]
    elif len(source.files) == 1:
        targets = [_checked(path, IMAGE_SUFFIXES, "an image")]
    else:
        raise InputError(f"{path} is one file for {len(source.files)} images; give a folder (a name without suffix)")

    check_not_input(targets, source.files)
    check_output(path if as_folder and not path.is_dir() else targets[0])
    if isinstance(source, ImageSource):
        return ImageSink(targets[0] if len(targets) == 1 else path, dict(zip(source.names, targets, strict=True)))
    return VideoSink(targets[0], source.fps or 25.0)


def results_folder(path: str | os.PathLike[str]) -> Path:
    """Where results that are saved along with ``path`` go: the folder itself, or ``NAME_results`` beside the file."""
    return Path(path) if _is_folder(path) else Path(path).with_name(f"{Path(path).stem}_results")


def _is_folder(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).endswith(os.sep) or not Path(path).suffix or Path(path).is_dir()


def _checked(path: Path, suffixes: Mapping[str, object] | frozenset[str], kind: str) -> Path:
    if path.suffix.lower() not in suffixes:
        raise InputError(f"cannot write {kind} to {path}: its suffix must be one of {', '.join(sorted(suffixes))}")
    return path


class ImageSink(Sink):
    """One image file per frame; ``files`` by the frames' names."""

    def __init__(self, path: Path, files: Mapping[str, Path]) -> None:
        super().__init__(path)
        self._files = files

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        file = self._files[frame.name]
        file.parent.mkdir(exist_ok=True)
        write_image(file, image)
        self.written += 1


class VideoSink(Sink):
    """A video under a temporary name until :meth:`close`, which makes it playable and gives it its own."""

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path)
        self._fps = fps
        self._temporary = temporary_name(path)
        self._writer: cv2.VideoWriter | None = None
        self._shape: tuple[int, ...] = ()

    def write(self, frame: Frame, image: NDArray[np.uint8]) -> None:
        if self._writer is None:
            self.path.parent.mkdir(exist_ok=True)
            self._shape = image.shape
            self._writer = self._open(image.shape[1] + image.shape[1] % 2, image.shape[0] + image.shape[0] % 2)
        if image.shape != self._shape:
            raise InputError(f"{self.path}: frame {frame.index} is {image.shape}, the first was {self._shape}")
        # OpenCV's writer reports no error, so look at the disk before each frame and at the file in the end.
        if shutil.disk_usage(self.path.parent).free < _RESERVE + image.nbytes:
            raise DeployError(f"the disk is full: stopped {self.path} after {self.written} frames")
        # 4:2:0 codecs take even sizes only; OpenCV would cut the odd row or column off.
        bottom, right = image.shape[0] % 2, image.shape[1] % 2
        if bottom or right:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE).astype(np.uint8, copy=False)
        self._writer.write(image)
        self.written += 1

    def _open(self, width: int, height: int) -> cv2.VideoWriter:
        for codec in _CODECS[self.path.suffix.lower()]:
            with _stderr_muted():
                fourcc = cv2.VideoWriter.fourcc(*codec)
                writer = cv2.VideoWriter(str(self._temporary), fourcc, self._fps, (width, height))
            if writer.isOpened():
                return writer
        self._temporary.unlink(missing_ok=True)
        raise InputError(f"this OpenCV cannot write {width}x{height} video to {self.path}; try .avi")

    def close(self) -> None:
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            if self.written and not _is_playable(self._temporary, self.written):
                raise DeployError(f"{self.path} could not be written completely; is the disk full, or a quota reached?")
            if self.written:
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def _is_playable(path: Path, frames: int) -> bool:
    """Whether the last of the frames can be decoded, and is the last (in a cut file, seeking ends up elsewhere)."""
    capture = cv2.VideoCapture(str(path))
    capture.set(cv2.CAP_PROP_POS_FRAMES, frames - 1)
    decoded, _ = capture.read()
    position = capture.get(cv2.CAP_PROP_POS_FRAMES)
    capture.release()
    return decoded and round(position) >= frames


@contextmanager
def _stderr_muted() -> Iterator[None]:
    """Discard what native code prints: OpenCV and FFmpeg write lines about every codec that is tried."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
