"""Overlays to an RTSP server, through the ffmpeg program."""

import shutil
import subprocess
import tempfile
from contextlib import suppress
from typing import IO

import numpy as np

from proscale_deploy.core.errors import DeployError, InputError
from proscale_deploy.core.types import Size
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.stats import Segmented
from proscale_deploy.runtime.streams.uri import Uri

__all__ = ["Publisher"]

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
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(image).data)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise DeployError(f"sending to {self._uri} failed: {self._reason()}") from None

    def _start(self) -> None:
        height, width = self._size
        source = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-video_size", f"{width}x{height}"]
        source += ["-framerate", f"{self._fps:g}", "-use_wallclock_as_timestamps", "1", "-i", "-"]
        # Colours at half resolution, which players expect, need even sizes.
        encoder = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2,format=yuv420p", "-c:v", "libx264", "-preset", "ultrafast"]
        encoder += ["-tune", "zerolatency", "-g", f"{2 * round(self._fps) or 2}"]
        target = ["-f", "rtsp", "-rtsp_transport", "tcp", self._uri.target]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [self._ffmpeg, "-hide_banner", "-loglevel", "error", *source, *encoder, *target],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for us; ffmpeg ends when its input does
        )

    def _reason(self) -> str:
        """What ffmpeg says."""
        assert self._process is not None
        assert self._errors is not None
        self._process.wait(_FINISH_SECONDS)
        self._errors.seek(0)
        # The first line has the cause, behind the part of ffmpeg that met it; the address in it may hold a password.
        line = self._errors.read().decode(errors="replace").strip().partition("\n")[0].partition("] ")
        cause = (line[2] or line[0]).replace(self._uri.target, str(self._uri))
        return f"{cause or 'ffmpeg ended'}; does a server run there that takes streams?"

    def close(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already
            process.stdin.close()
        try:
            process.wait(_FINISH_SECONDS)
        except subprocess.TimeoutExpired:  # a server that does not answer
            process.kill()
            process.wait()
        if self._errors is not None:
            self._errors.close()
