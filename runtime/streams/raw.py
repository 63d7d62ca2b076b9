"""Raw frames from a pipe: whatever can decode, ffmpeg above all, feeds the program."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.streams.source import Frame, Source

__all__ = ["RawFormat", "RawSource"]


@dataclass(frozen=True)
class RawFormat:
    """What comes through the pipe: BGR, 8 bits each, row by row, nothing between frames (ffmpeg's ``bgr24``)."""

    width: int
    height: int
    fps: float = 25.0

    @classmethod
    def parse(cls, text: str) -> "RawFormat":
        """``1280x720`` or ``1280x720@30``: width, height, frames per second.

        Raises:
            InputError: it is neither.
        """
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})(?:@(\d{1,3}(?:\.\d{1,4})?))?", text)
        fps = float(match[3] or cls.fps) if match else 0.0
        if match is None or not fps:
            raise InputError(f"--raw {text}: expected WIDTHxHEIGHT or WIDTHxHEIGHT@FPS, for instance 1280x720@30")
        return cls(int(match[1]), int(match[2]), fps)

    @property
    def feeder(self) -> str:
        """The ffmpeg command that makes such frames of any video."""
        return f"ffmpeg -i VIDEO -vf scale={self.width}:{self.height} -f rawvideo -pix_fmt bgr24 -"


class RawSource(Source):
    """Frames from a file descriptor, by default standard input, to its end. Nothing is dropped: the feeder waits.

    Raises:
        InputError: nothing is piped in, or it ends before the first frame does.
    """

    def __init__(self, format_: RawFormat, descriptor: int = 0) -> None:
        super().__init__((), None, format_.fps)
        self._format, self._descriptor = format_, descriptor
        if os.isatty(descriptor):
            raise InputError(
                f"no frames are piped in; for instance: {format_.feeder} | "
                f"proscale-deploy predict MODEL - --raw {format_.width}x{format_.height}"
            )

    @property
    def stem(self) -> str:
        return "stdin"

    @property
    def description(self) -> str:
        return f"raw frames, {self._format.width}x{self._format.height} bgr24, {self._format.fps:g} per second"

    def __iter__(self) -> Iterator[Frame]:
        shape, count = (self._format.height, self._format.width, 3), 0
        while True:
            image = np.empty(shape, np.uint8)
            found = self._fill(image.reshape(-1).data)
            if found < image.nbytes:
                break
            seconds = count / self._format.fps
            yield Frame(image, f"{self.stem}_{count:06d}", count, count, seconds, perf_counter())
            count += 1
        if not found:
            if not count:
                raise InputError(f"standard input ended before the first frame; feed it so: {self._format.feeder}")
            return
        problem = f"standard input ended in the middle of frame {count} ({found} of {image.nbytes} bytes); "
        advice = f"are the frames {self._format.width}x{self._format.height} and bgr24? {self._format.feeder}"
        if not count:
            raise InputError(problem + advice)
        self.warnings.append(problem + advice)

    def _fill(self, buffer: memoryview) -> int:
        """Bytes read; fewer than asked for at the end. Unbuffered: the last read of a program that is stopped hangs."""
        filled = 0
        while filled < len(buffer):
            read = os.readv(self._descriptor, [buffer[filled:]])
            if not read:
                break
            filled += read
        return filled
