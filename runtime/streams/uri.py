"""Names of inputs and outputs, as they are known from jetson-inference: ``csi://0``, ``rtsp://...``, ``clip.mp4``."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from proscale_deploy.core.errors import InputError

__all__ = ["CameraMode", "Kind", "Uri"]

Kind = Literal["v4l2", "csi", "network", "pipe", "display", "file"]

_NETWORK = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "tcp", "rtp")
_SCHEMES = ("v4l2", "csi", "display", "file", *_NETWORK)


@dataclass(frozen=True)
class CameraMode:
    """What a camera is asked for; None: what it gives by itself."""

    width: int | None = None
    height: int | None = None
    fps: int | None = None


@dataclass(frozen=True)
class Uri:
    """An input or an output.

    ``-`` is a pipe; ``/dev/video0`` and ``v4l2:///dev/video0`` a camera on USB, ``csi://0`` one on a Jetson's board,
    both with ``?width=1280&height=720&fps=30`` if wanted; ``display://0`` a window; ``rtsp://``, ``http://`` and the
    like the network; all else, with ``file://`` before it or not, is a path.
    """

    kind: Kind
    target: str
    """Device, sensor number, URL or path."""
    mode: CameraMode = CameraMode()

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> "Uri":
        """
        Raises:
            InputError: no such kind of input or output, or a camera is asked for what it does not know.
        """
        text = os.fspath(text)
        if text == "-":
            return cls("pipe", text)
        if re.match(r"/dev/video\d", text):
            text = f"v4l2://{text}"
        match = re.match(r"([a-z][a-z0-9+.-]+):/(/?)", text, re.IGNORECASE)
        if match is None or not (match[2] or match[1].lower() in _NETWORK):
            return cls("file", text)
        # pathlib makes one slash of two.
        scheme, rest = match[1].lower(), text[match.end() :]
        if scheme in _NETWORK:
            return cls("network", _checked(f"{scheme}://{rest}"))
        if scheme == "file":
            return cls("file", unquote(rest))
        if scheme == "display":
            return cls("display", rest or "0")
        if scheme not in ("v4l2", "csi"):
            raise InputError(f"cannot use {scheme}://: expected a path, - or one of {', '.join(_SCHEMES)} before ://")
        target, _, query = rest.partition("?")
        if scheme == "csi" and not target.isdecimal():
            raise InputError(f"{text}: expected the number of a CSI camera: csi://0")
        return cls("v4l2" if scheme == "v4l2" else "csi", target, _mode(text, query))

    def __str__(self) -> str:
        """For people and logs: without a password, and without a query, which may hold one."""
        if self.kind == "csi":
            return f"csi://{self.target}"
        if self.kind == "display":
            return f"display://{self.target}"
        if self.kind == "pipe":
            return "standard input"
        if self.kind != "network":
            return self.target
        url = urlsplit(self.target)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"

    @property
    def scheme(self) -> str:
        """Of a network address, else ``""``."""
        return self.target.partition("://")[0] if self.kind == "network" else ""

    @property
    def stem(self) -> str:
        """Good as a file name: ``video0``, ``csi0``, ``stdin``, ``10.0.0.7_stream1``, ``clip``."""
        if self.kind == "csi":
            return f"csi{self.target}"
        if self.kind == "pipe":
            return "stdin"
        if self.kind != "network":
            return Path(self.target).stem
        url = urlsplit(self.target)
        words = [url.netloc.rpartition("@")[2], *Path(url.path).parts[1:-1], Path(url.path).stem]
        return re.sub(r"[^\w.-]+", "_", "_".join(words)).strip("_.") or "stream"


def _checked(url: str) -> str:
    """An address that is none is not repeated: it may hold a password."""
    try:
        urlsplit(url).port  # noqa: B018 (raises)
    except ValueError:
        raise InputError(
            f"{url.partition(':')[0]}:// before no address: expected HOST/PATH, HOST:PORT/PATH or "
            "USER:PASSWORD@HOST/PATH, with %23, %2F and %3F for #, / and ? in a password"
        ) from None
    return url


def _mode(text: str, query: str) -> CameraMode:
    wanted: dict[str, int] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in ("width", "height", "fps") or not re.fullmatch(r"[1-9]\d{0,4}", value):
            raise InputError(f"{text}: expected width, height and fps as whole numbers: ?width=1280&height=720&fps=30")
        wanted[name] = int(value)
    return CameraMode(**wanted)
