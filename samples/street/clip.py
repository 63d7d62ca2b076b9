"""A moving street the model never saw: ``python -m samples.street.clip street.mp4``."""

import argparse
import os
from pathlib import Path

import click
import cv2

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import Size
from samples.street.world import Scene

__all__ = ["CLIP_FPS", "CLIP_SEED", "CLIP_SIZE", "write_clip"]

CLIP_SEED = 3_000_009
CLIP_SIZE: Size = (576, 960)
CLIP_FPS = 25
_SMALLEST_THING = 2e-4
"""Share of the picture. Things come into view far away, where their sudden appearance does not catch the eye."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("output", type=Path)
    options.add_argument("--seconds", type=float, default=8.0)
    chosen = options.parse_args()
    write_clip(chosen.output, chosen.seconds)


def write_clip(path: Path, seconds: float) -> None:
    """Paint ``seconds`` of the street and write them as an MPEG-4 video.

    Raises:
        InputError: the video cannot be written.
    """
    partial = path.with_name(f".{path.stem}.partial.mp4")
    scene = Scene(CLIP_SEED)
    writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"mp4v"), CLIP_FPS, CLIP_SIZE[::-1])
    if not writer.isOpened():
        raise InputError(
            f"{path}: OpenCV cannot write this video; expected a path like street.mp4 in a folder that exists"
        )
    with click.progressbar(range(round(seconds * CLIP_FPS)), label="painting") as frames:
        for index in frames:
            writer.write(scene.frame(index / CLIP_FPS, CLIP_SIZE, _SMALLEST_THING)[0])
    writer.release()
    os.replace(partial, path)


if __name__ == "__main__":
    main()
