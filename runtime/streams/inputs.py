"""Any input by its name: files, cameras, network streams, pipes."""

import os
import threading
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.image import IMAGE_SUFFIXES
from proscale_deploy.runtime.streams.capture import OPEN_TIMEOUT, READ_TIMEOUT, open_capture
from proscale_deploy.runtime.streams.live import LiveSource
from proscale_deploy.runtime.streams.raw import RawFormat, RawSource
from proscale_deploy.runtime.streams.source import ImageSource, Source, VideoSource, open_source
from proscale_deploy.runtime.streams.uri import Uri

__all__ = ["open_input"]

Opened = TypeVar("Opened")


def open_input(name: str | os.PathLike[str], raw: RawFormat | None = None) -> Source:
    """Open what :class:`~proscale_deploy.runtime.streams.uri.Uri` names.

    What has an end is read to it, and no frame is left out: images, videos, also by HTTP, and raw frames from a pipe,
    for which ``raw`` says what they are. Cameras and other streams give their newest frame and come back when lost.

    Raises:
        InputError: nothing is there, or no frame can be expected from it.
    """
    uri = Uri.parse(name)
    if raw is not None and uri.kind != "pipe":
        raise InputError(f"--raw is for frames from a pipe, which is named -; found {uri}")
    if uri.kind == "pipe":
        if raw is None:
            example = RawFormat(1280, 720)
            raise InputError(
                f"raw frames from a pipe need --raw WIDTHxHEIGHT[@FPS]: {example.feeder} | "
                f"proscale-deploy predict MODEL - --raw {example.width}x{example.height}"
            )
        return RawSource(raw)
    if uri.kind == "file":
        return open_source(uri.target)
    if uri.kind == "display":
        raise InputError(f"cannot read {uri}: a window is an output")
    if uri.scheme not in ("http", "https"):
        return LiveSource(uri, lambda: open_capture(uri))
    if Path(urlsplit(uri.target).path).suffix.lower() in IMAGE_SUFFIXES:
        return _DownloadedImage(uri)
    capture = _in_time(lambda: open_capture(uri), OPEN_TIMEOUT + READ_TIMEOUT, uri)
    if capture.length is not None:
        return VideoSource(uri, capture)
    opened = [capture]
    return LiveSource(uri, lambda: opened.pop() if opened else open_capture(uri))


class _DownloadedImage(ImageSource):
    """An image by HTTP, decoded as one from a file is."""

    def __init__(self, uri: Uri) -> None:
        self._folder = TemporaryDirectory(prefix="proscale-deploy-")
        file = Path(self._folder.name, Path(unquote(urlsplit(uri.target).path)).name)
        try:
            file.write_bytes(_download(uri.target))
        except (OSError, ValueError, HTTPException) as error:
            self._folder.cleanup()
            if isinstance(error, HTTPError):
                error.close()
            raise InputError(f"cannot read {uri}: {getattr(error, 'reason', error)}") from error
        super().__init__([file])

    def close(self) -> None:
        self._folder.cleanup()


def _download(address: str) -> bytes:
    """With user and password, if the address has them, as the server asks for them."""
    url, passwords = urlsplit(address), urllib.request.HTTPPasswordMgrWithDefaultRealm()
    plain = urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2]))
    passwords.add_password(None, plain, unquote(url.username or ""), unquote(url.password or ""))
    ways = urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.HTTPDigestAuthHandler(passwords)
    with urllib.request.build_opener(*ways).open(plain, timeout=OPEN_TIMEOUT) as answer:
        return bytes(answer.read())


def _in_time(open_: Callable[[], Opened], seconds: float, uri: Uri) -> Opened:
    """What ``open_`` gives; where it hangs in native code, it is left alone there."""
    opened: list[Opened | Exception] = []

    def work() -> None:
        try:
            opened.append(open_())
        except Exception as error:
            opened.append(error)

    thread = threading.Thread(target=work, name="opening", daemon=True)
    thread.start()
    thread.join(seconds)
    if not opened:
        raise InputError(f"cannot open {uri}: nothing came within {seconds:g} seconds")
    if isinstance(opened[0], Exception):
        raise opened[0]
    return opened[0]
