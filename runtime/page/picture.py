"""The newest frame drawn and encoded for all who watch, once; nothing is done while nobody does."""

import logging
import threading
from dataclasses import dataclass
from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo
from proscale_deploy.runtime.draw import OPACITY, overlay
from proscale_deploy.runtime.streams.stats import Segmented

__all__ = ["LivePicture"]

_LONGEST_SIDE = 1920
"""Pixels of the live picture; stills keep the frame's own size."""
_INTERVAL = 1 / 30
"""Seconds from one live picture to the next, at least: more would cost a core, and nobody would see it."""
_LIVE_QUALITY, _STILL_QUALITY = 80, 95

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Drawn:
    item: Segmented
    opacity: float
    jpeg: bytes
    """Empty where drawing failed and there was none before."""

    def is_of(self, item: Segmented, opacity: float) -> bool:
        return self.item is item and self.opacity == opacity


class LivePicture:
    """Takes every frame from the pipeline without blocking it, and hands JPEGs to any number of viewers.

    A slot, not a queue: a frame that comes replaces one that nobody has drawn yet. So a viewer who falls behind skips
    frames, and what is seen does not get older.
    """

    def __init__(self, classes: tuple[ClassInfo, ...], most_viewers: int) -> None:
        self._classes = classes
        self._most_viewers = most_viewers
        self._changed = threading.Condition()
        self._item: Segmented | None = None
        self._opacity = OPACITY
        self._viewers: list[str] = []
        self._live: _Drawn | None = None
        self._closed = False
        self._still: _Drawn | None = None
        self._still_lock = threading.Lock()
        self._painter = threading.Thread(target=self._paint, name="page-painter", daemon=True)
        self._painter.start()

    def show(self, item: Segmented) -> None:
        """The newest frame; never blocks."""
        with self._changed:
            self._item = item
            self._changed.notify_all()

    @property
    def newest(self) -> Segmented | None:
        return self._item

    @property
    def opacity(self) -> float:
        """Of the tint, 0..1, for all viewers."""
        return self._opacity

    @opacity.setter
    def opacity(self, opacity: float) -> None:
        with self._changed:
            self._opacity = opacity
            self._changed.notify_all()

    @property
    def viewers(self) -> list[str]:
        """The names under which they joined."""
        with self._changed:
            return list(self._viewers)

    def join(self, name: str) -> bool:
        """Count the caller among the viewers, for whom frames are drawn, until it leaves; False where it is full."""
        with self._changed:
            if len(self._viewers) >= self._most_viewers:
                return False
            if not self._viewers:
                self._live = None  # it was drawn for those who left, maybe long ago
            self._viewers.append(name)
            self._changed.notify_all()
            return True

    def leave(self, name: str) -> None:
        with self._changed:
            self._viewers.remove(name)

    def next_jpeg(self, previous: bytes | None, timeout: float) -> bytes | None:
        """The live picture, once it is another than ``previous`` or ``timeout`` seconds have passed.

        None where there is none by then, and at once after :meth:`close`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._jpeg() is not previous, timeout)
            return None if self._closed else self._jpeg()

    def still(self) -> tuple[Segmented, bytes] | None:
        """The newest frame and its overlay as a JPEG of full size; None before the first."""
        with self._still_lock:  # those who ask at the same time get the same picture, encoded once
            item, opacity = self._item, self._opacity
            if item is None:
                return None
            if self._still is None or not self._still.is_of(item, opacity):
                self._still = _Drawn(item, opacity, _encode(self._overlay(item, opacity), _STILL_QUALITY))
            return item, self._still.jpeg

    def close(self) -> None:
        """End the painter and all waiting; what is shown after that is not drawn."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._painter.join()

    def _paint(self) -> None:
        while (wanted := self._wanted()) is not None:
            start = perf_counter()
            jpeg = b""
            try:
                jpeg = _encode(self._overlay(*wanted, _LONGEST_SIDE), _LIVE_QUALITY)
            except Exception:  # one frame's fault: the next ones are still to be seen
                _LOG.exception("drawing %s for the page failed", wanted[0].frame.name)
            with self._changed:
                self._live = _Drawn(*wanted, jpeg or self._jpeg() or b"")
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._closed, start + _INTERVAL - perf_counter())

    def _wanted(self) -> tuple[Segmented, float] | None:
        """What is to be drawn next, once there is something; None at the end."""
        with self._changed:
            while not self._closed:
                item, opacity = self._item, self._opacity
                if self._viewers and item is not None and not (self._live and self._live.is_of(item, opacity)):
                    return item, opacity
                self._changed.wait()
            return None

    def _jpeg(self) -> bytes | None:
        return (self._live.jpeg if self._live else b"") or None

    def _overlay(self, item: Segmented, opacity: float, longest_side: int | None = None) -> NDArray[np.uint8]:
        return overlay(item.frame.image, item.result, self._classes, opacity, longest_side)


def _encode(image: NDArray[np.uint8], quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
