"""Overlays to an RTSP server, through the ffmpeg program."""

import os
import re
import select
import shutil
import subprocess
import tempfile
from typing import IO

import numpy as np

from proscale_deploy.core.errors import DeployError, InputError
from proscale_deploy.core.types import Size
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.stats import Segmented
from proscale_deploy.runtime.streams.uri import Uri

__all__ = ["Publisher"]

_STALL_SECONDS = 10.0
"""A server that takes nothing for so long is given up."""
_FINISH_SECONDS = 5.0


class Publisher(Output):
    """Sends H.264 to an RTSP server that takes streams, such as MediaMTX; every picture is shown when it comes.

    Raises:
        InputError: ffmpeg is not installed.
    """

    def __init__(self, uri: Uri, fps: float) -> None:
        self._uri, self._fps, self.name = uri, fps, str(uri)
        self._ffmpeg = shutil.which("ffmpeg") or ""
        if not self._ffmpeg:
            raise InputError(f"sending to {uri} needs the ffmpeg program, which is not here: sudo apt install ffmpeg")
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._size: Size = (0, 0)

    def write(self, item: Segmented, picture: Picture) -> None:
        image = picture()
        height, width = image.shape[:2]
        if self._process is None or self._size != (height, width):
            self.close()
            self._size = height, width
            self._process = self._start()
        try:
            self._send(self._process, np.ascontiguousarray(image).data.cast("B"))
        except BrokenPipeError:
            self.close()
            raise DeployError(f"sending to {self._uri} failed: ffmpeg ended") from None

    def _send(self, process: "subprocess.Popen[bytes]", data: memoryview) -> None:
        assert process.stdin is not None
        pipe = process.stdin.fileno()
        while data:
            if not select.select([], [pipe], [], _STALL_SECONDS)[1]:
                process.kill()
                raise DeployError(f"sending to {self._uri} failed: nothing was taken for {_STALL_SECONDS:g} seconds")
            data = data[os.write(pipe, data) :]

    def _start(self) -> "subprocess.Popen[bytes]":
        height, width = self._size
        source = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-video_size", f"{width}x{height}"]
        source += ["-framerate", f"{self._fps:g}", "-use_wallclock_as_timestamps", "1", "-i", "-"]
        # Colours at half resolution, which players expect, need even sizes.
        encoder = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p", "-c:v", "libx264", "-preset", "ultrafast"]
        encoder += ["-tune", "zerolatency", "-g", f"{2 * round(self._fps) or 2}"]
        target = ["-f", "rtsp", "-rtsp_transport", "tcp", self._uri.target]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        process = subprocess.Popen(
            [self._ffmpeg, "-hide_banner", "-loglevel", "error", *source, *encoder, *target],
            stdin=subprocess.PIPE,
            bufsize=0,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for us; ffmpeg ends when its input does
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process

    def close(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        assert self._errors is not None
        process.stdin.close()
        try:
            status = process.wait(_FINISH_SECONDS)
        except subprocess.TimeoutExpired:  # a server that does not answer
            process.kill()
            status = process.wait()
        with self._errors as errors:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
        if status:
            why = _cause(said) or "ffmpeg ended"
            raise DeployError(f"sending to {self._uri} failed: {why}; does a server run there that takes streams?")


def _cause(said: str) -> str:
    """The first line of what ffmpeg said, without the name of its part that said it, and without passwords."""
    line = said.partition("\n")[0]
    return re.sub(r"//[^/\s]*@", "//", line.partition("] ")[2] or line)
