"""A live stream for a long time: does memory grow, does the picture grow old?

    python benchmarks/soak.py demo/street.onnx demo/clip.mp4 [--frames 5000] [--fps 25] [--output soak]

The clip goes round and round as a camera would: on time, whether anybody takes its frames or not. Every 1000 frames it
is lost and found again. Results are drawn. Twice a second the resident memory of the process and the age of the frames
when their results are there are sampled, into soak.json and soak.png. No video is written: the index of an MP4 file
stands in memory until its end, about 0.3 MB for 1000 frames. Linux only.
"""

import argparse
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from proscale_deploy.core.machine import cpu_name, cpus
from proscale_deploy.runtime import Output, Picture, Segmented, Segmenter, Stream, StreamStats
from proscale_deploy.runtime.streams.live import LiveSource
from proscale_deploy.runtime.streams.uri import Uri

LOST_AFTER = 1000
"""Frames of a connection."""
WARM_UP = 0.2
"""Share of the samples from which nothing is concluded: libraries fill their pools."""
_WIDTH, _HEIGHT, _MARGIN = 900, 220, 60


class Loop:
    """Reads a clip as if it were a camera."""

    decoder, length = "OpenCV", None

    def __init__(self, clip: Path, fps: float) -> None:
        self._capture, self.fps = cv2.VideoCapture(str(clip)), fps
        self._left, self._due = LOST_AFTER, time.perf_counter()

    def read(self) -> NDArray[np.uint8] | None:
        if not self._left:
            return None
        decoded, image = self._capture.read()
        if not decoded:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            decoded, image = self._capture.read()
        self._left -= 1
        self._due = max(self._due + 1 / self.fps, time.perf_counter())
        time.sleep(max(0.0, self._due - time.perf_counter()))
        return image

    def release(self) -> None:
        self._capture.release()


class Canvas(Output):
    """Draws what a window would show."""

    def write(self, item: Segmented, picture: Picture) -> None:
        picture()


@dataclass(frozen=True)
class Sample:
    """The stream at one moment: seconds since its start, counts since then, seconds of age, megabytes."""

    seconds: float
    frames: int
    dropped: int
    age: float
    memory: float


def soak(model: Path, clip: Path, frames: int, fps: float) -> tuple[list[Sample], StreamStats]:
    """Run until so many frames are segmented."""
    samples: list[Sample] = []
    start = time.perf_counter()
    source = LiveSource(Uri("file", str(clip)), lambda: Loop(clip, fps))
    with source, Segmenter.open(model) as segmenter:
        stream = Stream(source, segmenter, outputs=[Canvas()])

        def tick(stats: StreamStats) -> None:
            seconds = time.perf_counter() - start
            samples.append(Sample(seconds, stats.frames, stats.dropped, stats.age, _resident()))
            print(f"\r{stats.frames} of {frames}, {1000 * stats.age:.0f} ms, {_resident():.0f} MB", end="", flush=True)
            if stats.frames >= frames:
                stream.stop()

        stream.run(tick)
    print()
    return samples, stream.stats()


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def growth(values: Sequence[float], seconds: Sequence[float]) -> float:
    """Per hour, by the straight line that fits best."""
    return float(np.polyfit(seconds, values, 1)[0]) * 3600


def plot(samples: Sequence[Sample], path: Path) -> None:
    """Memory and age over time, each from zero."""
    rows = {"memory, MB": [s.memory for s in samples], "age of frames, ms": [1000 * s.age for s in samples]}
    picture = Image.new("RGB", (_WIDTH, _HEIGHT * len(rows)), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    last = samples[-1].seconds
    for row, (name, values) in enumerate(rows.items()):
        bottom, top = _HEIGHT * (row + 1) - 30, _HEIGHT * row + 30
        highest = max(values)
        draw.text((_MARGIN, top - 22), f"{name} (last {values[-1]:.0f}, most {highest:.0f})", "black", font)
        draw.line((_MARGIN, top, _MARGIN, bottom, _WIDTH - 20, bottom), "gray")
        draw.text((8, top - 6), f"{highest:.0f}", "black", font)
        draw.text((_WIDTH - 80, bottom + 6), f"{last:.0f} s", "black", font)
        points = [
            (_MARGIN + (_WIDTH - 20 - _MARGIN) * s.seconds / last, bottom - (bottom - top) * value / highest)
            for s, value in zip(samples, values, strict=True)
        ]
        draw.line(points, (60, 110, 180), 2)
    picture.save(path)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", type=Path)
    options.add_argument("clip", type=Path)
    options.add_argument("--frames", type=int, default=5000, help="segmented")
    options.add_argument("--fps", type=float, default=25.0, help="of the camera")
    options.add_argument("--output", type=Path, default=Path("soak"), help="of .json and .png")
    chosen = options.parse_args()
    samples, stats = soak(chosen.model, chosen.clip, chosen.frames, chosen.fps)
    settled = samples[round(WARM_UP * len(samples)) :]
    seconds = [sample.seconds for sample in settled]
    facts = {
        "frames": stats.frames,
        "dropped": stats.dropped,
        "reconnects": stats.reconnects,
        "seconds": samples[-1].seconds,
        "camera_fps": chosen.fps,
        "memory_mb_first": settled[0].memory,
        "memory_mb_last": settled[-1].memory,
        "memory_mb_per_hour": growth([sample.memory for sample in settled], seconds),
        "age_ms_median": 1000 * median(sample.age for sample in settled),
        "age_ms_first_quarter": 1000 * fmean(sample.age for sample in settled[: len(settled) // 4]),
        "age_ms_last_quarter": 1000 * fmean(sample.age for sample in settled[-len(settled) // 4 :]),
        "cpu": f"{cpu_name()}, {cpus()} CPUs",
    }
    for name, value in facts.items():
        print(f"{name:<22} {value if isinstance(value, str) else f'{value:.6g}'}")
    rows = [asdict(sample) for sample in samples]
    chosen.output.with_suffix(".json").write_text(json.dumps({**facts, "samples": rows}, indent=1) + "\n")
    plot(samples, chosen.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
