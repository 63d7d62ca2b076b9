"""What takes the results of a stream: files, windows, other programs."""

import threading
from abc import ABC, abstractmethod
from time import perf_counter
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo
from proscale_deploy.runtime.draw import render
from proscale_deploy.runtime.streams.stats import Segmented

__all__ = ["Output", "Picture"]


class Picture:
    """A segmented frame as :func:`~proscale_deploy.runtime.draw.render` draws it, once and only if somebody asks."""

    def __init__(self, item: Segmented, classes: tuple[ClassInfo, ...]) -> None:
        self.classes = classes
        """Of the model."""
        self._item = item
        self._drawing = threading.Lock()
        self._image: NDArray[np.uint8] | None = None
        self.seconds = 0.0
        """That drawing took; 0 if nobody has asked."""

    def __call__(self) -> NDArray[np.uint8]:
        """(H + h, W, 3) BGR, for all who ask; not to be changed."""
        with self._drawing:
            if self._image is None:
                start = perf_counter()
                self._image = render(self._item.frame.image, self._item.result, self.classes)
                self.seconds = perf_counter() - start
            return self._image


class Output(ABC):
    """Takes results in order, all from one thread; a context manager that finishes what it made however it ends."""

    finished = False
    """True once whoever looked has closed it: the stream ends."""
    on_main_thread = False
    """Whether the window system wants it so."""
    name = ""
    """Where it goes, for people."""

    @property
    def kept(self) -> str:
        """What remains of it, for people: ``out.mp4 (41 frames)``; "" where there is nothing to say."""
        return ""

    @abstractmethod
    def write(self, item: Segmented, picture: Picture) -> None:
        """Take one result.

        Raises:
            DeployError: it cannot be written, shown or sent.
            OSError: the same, as the system says it.
        """

    def idle(self) -> None:  # noqa: B027 (not every output has something to do)
        """Called a few times a second while nothing comes."""

    def close(self) -> None:  # noqa: B027
        """Finish what was made; calling twice does no harm.

        Raises:
            DeployError: it is not complete.
        """

    def __enter__(self) -> "Output":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
