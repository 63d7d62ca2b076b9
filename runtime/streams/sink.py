"""Overlays as files: an image, a folder of images, or a video."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import DeployError, InputError
from proscale_deploy.core.files import check_not_input, check_output, temporary_name
from proscale_deploy.core.types import Size
from proscale_deploy.runtime.image import IMAGE_SUFFIXES, write_image
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.source import Frame, ImageSource, Source
from proscale_deploy.runtime.streams.stats import Segmented

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


_LIVE_FPS = 30.0
"""Frames per second of the recording of a live source, at most."""
_LONGEST_PAUSE = 2.0
"""Seconds without a picture of a live source that its recording shows; longer ones are cut to this."""


class Sink(Output):
    """An output that is files. What it was making when the stream ended remains, and can be played."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """The file that is written, or the folder for several."""
        self.written = 0
        """Pictures."""
        self.name = str(path)

    @property
    def kept(self) -> str:
        frames = "1 frame" if self.written == 1 else f"{self.written} frames"
        return f"{self.path} ({frames})" if self.written else ""


def open_sink(path: str | os.PathLike[str], source: Source) -> Sink:
    """The sink that suits the source; what is already there is replaced.

    A path with a suffix is a file: a video for a video or a stream, an image for one image. Otherwise it is a folder,
    made with the first frame if its parent is there; a video goes into it as ``NAME.mp4``, images as ``NAME.jpg``.

    Raises:
        InputError: the suffix does not suit the source, the parent folder is missing, the source would be replaced, or
            its images would be mixed with what comes of them.
    """
    as_folder, path = _is_folder(path), Path(path)
    if not isinstance(source, ImageSource):
        file = path / f"{source.stem}.mp4" if as_folder else path
        targets = [_checked(file, _CODECS, "a video")]
    elif as_folder:
        targets = [path / f"{name}.jpg" for name in source.names]
    elif len(source.files) == 1:
        targets = [_checked(path, IMAGE_SUFFIXES, "an image")]
    else:
        raise InputError(f"{path} is one file for {len(source.files)} images; give a folder (a name without suffix)")

    check_not_input(targets, source.files)
    if as_folder and len(source.files) > 1 and path.resolve() in {file.resolve().parent for file in source.files}:
        raise InputError(f"{path} is the folder the images come from; give another --output")
    check_output(path if as_folder and not path.is_dir() else targets[0])
    if isinstance(source, ImageSource):
        return ImageSink(targets[0] if len(targets) == 1 else path, dict(zip(source.names, targets, strict=True)))
    fps = source.fps or 25.0
    return VideoSink(targets[0], min(fps, _LIVE_FPS) if source.live else fps, real_time=source.live)


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

    def write(self, item: Segmented, picture: Picture) -> None:
        file = self._files[item.frame.name]
        file.parent.mkdir(exist_ok=True)
        write_image(file, picture())
        self.written += 1


class VideoSink(Sink):
    """A video under a temporary name until :meth:`close`, which makes it playable and gives it its own.

    All pictures get the size of the first: others are scaled to fit, with bars where their shape differs.

    Args:
        fps: frames per second of the file.
        real_time: show every picture for as long as it was the newest, by repeating it, so that the recording of a
            camera plays as fast as the world went, however many of its frames could be segmented.
    """

    def __init__(self, path: Path, fps: float, *, real_time: bool = False) -> None:
        super().__init__(path)
        self._fps, self._real_time = fps, real_time
        self._temporary = temporary_name(path)
        self._writer: cv2.VideoWriter | None = None
        self._size: Size = (0, 0)
        self._start = 0.0

    def write(self, item: Segmented, picture: Picture) -> None:
        if self._writer is None:
            self._start = item.frame.timestamp
        times = self._times(item.frame)
        if not times:
            return
        image = picture()
        if self._writer is None:
            self.path.parent.mkdir(exist_ok=True)
            # 4:2:0 codecs take even sizes only; OpenCV would cut the odd row or column off.
            self._size = image.shape[0] + image.shape[0] % 2, image.shape[1] + image.shape[1] % 2
            self._writer = self._open(self._size[1], self._size[0])
        image = _fitted(image, self._size)
        for _ in range(times):
            # OpenCV's writer reports no error, so look at the disk before each frame and at the file in the end.
            if shutil.disk_usage(self.path.parent).free < _RESERVE + image.nbytes:
                raise DeployError(f"the disk is full: stopped {self.path} after {self.written} frames")
            self._writer.write(image)
            self.written += 1

    def _times(self, frame: Frame) -> int:
        """How often its picture stands in the file."""
        if not self._real_time:
            return 1
        due = 1 + round((frame.timestamp - self._start) * self._fps) - self.written
        if (pause := due - round(_LONGEST_PAUSE * self._fps)) > 0:
            self._start += pause / self._fps
            due -= pause
        return max(0, due)

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


def _fitted(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """The picture at (height, width), in the upper left corner: an odd row or column is doubled, more is filled up."""
    height, width = image.shape[:2]
    down, right = size[0] - height, size[1] - width
    if 0 <= down <= 1 and 0 <= right <= 1:
        padded = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REPLICATE) if down or right else image
        return padded.astype(np.uint8, copy=False)
    scale = min(size[0] / height, size[1] / width)
    height, width = max(1, round(scale * height)), max(1, round(scale * width))
    fitted = np.zeros((*size, 3), np.uint8)
    fitted[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return fitted


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
