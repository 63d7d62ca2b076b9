"""The page of a stream, and its picture: ``python -m samples.street.stream_page street.onnx clip.mp4 page.png``."""

import argparse
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np

from proscale_deploy.runtime import Frame, Segmenter, Source, Stream, serve_page
from samples.street.clip import CLIP_FPS

__all__ = ["Camera", "photograph"]

SECONDS = 15.0
"""Of streaming before the picture is taken, so that there is something to see in the plots."""
WINDOW = (1440, 900)
"""Width and height of the picture, pixels."""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_LOADING = 4000
"""Milliseconds that the page is given, on the browser's own clock."""


class Camera(Source):
    """A stand-in for a camera: a clip over and over, each frame at its time, taken or not."""

    live = True

    def __init__(self, clip: Path) -> None:
        super().__init__((clip,), None, CLIP_FPS)
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        start, count = perf_counter(), 0
        while True:
            capture = cv2.VideoCapture(str(self.files[0]))
            while (step := capture.read())[0]:
                seconds = count / CLIP_FPS
                if self._stopped.wait(max(0.0, start + seconds - perf_counter())):
                    return
                image = step[1].astype(np.uint8, copy=False)
                yield Frame(image, f"camera_{count:06d}", count, count, seconds, perf_counter())
                count += 1

    def stop(self) -> None:
        self._stopped.set()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "clip", "picture"):
        options.add_argument(name, type=Path)
    chosen = options.parse_args()
    if problem := photograph(chosen.model, chosen.clip, chosen.picture):
        raise SystemExit(f"error: {problem}")


def photograph(model: Path, clip: Path, picture: Path, seconds: float = SECONDS) -> str:
    """Stream the clip for ``seconds`` and write what a browser shows of its page to ``picture`` (PNG).

    Gives the reason why there is no picture, "" where there is one.
    """
    picture.unlink(missing_ok=True)  # that of an earlier run
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        return "no Chromium on this machine"
    with Camera(clip) as camera, Segmenter.open(model) as segmenter:
        stream = Stream(camera, segmenter)
        page = serve_page(stream, "0", clip.name)
        running = threading.Thread(target=stream.run)
        running.start()
        try:
            running.join(seconds)
            return _screenshot(browser, page.url, picture)
        finally:
            stream.stop()
            running.join()


def _screenshot(browser: str, url: str, picture: Path) -> str:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, "--headless", "--disable-gpu", "--disable-quic", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has none for root
        command += [f"--user-data-dir={profile}", "--window-size={},{}".format(*WINDOW), "--hide-scrollbars"]
        command += [f"--virtual-time-budget={_LOADING}", f"--screenshot={picture.absolute()}", url]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return f"{browser} took more than a minute"
    if picture.exists():
        return ""
    return f"{browser} failed: {(done.stderr.strip().splitlines() or [f'status {done.returncode}'])[-1]}"


if __name__ == "__main__":
    main()
