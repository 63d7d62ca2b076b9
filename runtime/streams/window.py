"""Overlays in a window."""

import subprocess
import sys
from contextlib import suppress

import cv2

from proscale_deploy.core.errors import InputError
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.stats import Segmented

__all__ = ["Window"]

_CLOSING_KEYS = frozenset({ord("q"), 27})
"""q, Esc."""


class Window(Output):
    """Shows the newest picture; q, Esc or closing it ends the stream.

    Raises:
        InputError: there is no screen, or this OpenCV opens no windows.
    """

    name = "the window"
    on_main_thread = True

    def __init__(self, title: str) -> None:
        # In another process: where Qt finds no screen, it ends the one it is in.
        code = "import cv2; cv2.namedWindow('proscale-deploy'); cv2.waitKey(1)"
        probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if probe.returncode:
            raise InputError(
                "display://0: cannot open a window here; expected a screen (DISPLAY or WAYLAND_DISPLAY) and an OpenCV "
                "that opens windows (opencv-python, not -headless). From another machine, use --serve"
            )
        self._title, self._open = title, False

    def write(self, item: Segmented, picture: Picture) -> None:
        image = picture()
        if not self._open:
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
            cv2.resizeWindow(self._title, image.shape[1], image.shape[0])
            self._open = True
        cv2.imshow(self._title, image)
        self.idle()

    def idle(self) -> None:
        if not self._open:
            return
        key = cv2.waitKey(1) & 0xFF
        self.finished = key in _CLOSING_KEYS or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1

    def close(self) -> None:
        if self._open:
            self._open = False
            with suppress(cv2.error):  # whoever looked has closed it
                cv2.destroyWindow(self._title)
