"""Any output by its name: files, a window, a server, a pipe."""

import os
import re
import sys

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.page.serve import PageServer
from proscale_deploy.runtime.streams.json_lines import JsonLines
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.publish import Publisher
from proscale_deploy.runtime.streams.sink import open_sink
from proscale_deploy.runtime.streams.source import Source
from proscale_deploy.runtime.streams.stats import Segmented
from proscale_deploy.runtime.streams.stream import Stream
from proscale_deploy.runtime.streams.uri import Uri
from proscale_deploy.runtime.streams.window import Window

__all__ = ["open_output", "serve_page"]


def open_output(name: str | os.PathLike[str], source: Source) -> Output:
    """Open what ``name`` is: a file or folder for overlays (see
    :func:`~proscale_deploy.runtime.streams.sink.open_sink`), ``display://0`` a window, ``rtsp://HOST/PATH`` a server
    that takes streams, ``-`` standard output, for JSON lines.

    Raises:
        InputError: it cannot be written, or does not suit the source.
        MissingDependency: JSON lines without pycocotools.
    """
    uri = Uri.parse(name)
    if uri.kind == "file":
        # As it was given: a slash at its end says that it is a folder.
        return open_sink(uri.target, source)
    if uri.kind == "display":
        return Window(f"proscale-deploy: {source.stem}")
    if uri.kind == "pipe":
        return JsonLines(sys.stdout)
    if uri.scheme in ("rtsp", "rtsps"):
        return Publisher(uri, source.fps or 25.0)
    raise InputError(f"cannot write to {uri}: expected a file, a folder, -, display://0 or rtsp://HOST/PATH")


def serve_page(stream: Stream, address: str, title: str) -> PageServer:
    """Add the page of a stream to its outputs, before it runs.

    Args:
        address: HOST:PORT, or PORT alone, which only this machine can reach; port 0 takes any free one.
        title: what is seen.

    Raises:
        InputError: the address cannot be used.
    """
    page = PageServer(_host_and_port(address), stream.manifest, title, stream.stats, stream.switch)
    stream.add(_Page(page))
    return page


class _Page(Output):
    name = "the page"

    def __init__(self, page: PageServer) -> None:
        self._page = page

    def write(self, item: Segmented, picture: Picture) -> None:
        self._page.show(item)  # it draws by itself, when somebody watches

    def close(self) -> None:
        self._page.close()


def _host_and_port(address: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:http://)?(?:(\[[0-9a-fA-F:.]+\]|[^\s:/]+):)?(\d{1,5})/?", address)
    if match is None or int(match[2]) > 65535:
        raise InputError(f"cannot serve on {address}: expected HOST:PORT or PORT, for instance 127.0.0.1:8080")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])
