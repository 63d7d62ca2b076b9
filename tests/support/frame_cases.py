"""Frames for the compiled preprocessing: every kind of size, layout and content, small enough for slow machines."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from proscale_deploy.core.types import InputSpec, Placement
from proscale_deploy.runtime.preprocess import preprocess

__all__ = ["SPEC", "Case", "cases", "random_frame"]

SPEC = InputSpec(
    height=64,
    width=160,
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    channels="RGB",
    shortest_edge=40,
    longest_edge=150,
    size_divisibility=1,
)
UNSCALED = dataclasses.replace(SPEC, shortest_edge=0)


@dataclasses.dataclass(frozen=True)
class Case:
    """A frame, the network's input, and what must become of one in the other."""

    name: str
    frame: NDArray[np.uint8]
    spec: InputSpec

    def expected(self, dtype: DTypeLike) -> tuple[NDArray[Any], Placement]:
        image, placement = preprocess(self.frame, self.spec)
        return image.astype(dtype), placement


def random_frame(height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3); the same ones every time."""
    return np.random.default_rng(height * 100_003 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cases() -> Iterator[Case]:
    sizes = [
        *((120, 200), (121, 333), (90, 161), (64, 160), (300, 120), (200, 66)),  # smaller
        *((20, 32), (7, 11), (33, 47), (1, 1), (2, 3), (5, 4)),  # larger
        *((40, 100), (40, 39), (63, 150)),  # as they are
        *((1, 700), (700, 1), (2, 1000), (1000, 3), (900, 1200)),  # far
    ]
    for height, width in sizes:
        yield Case(f"{height}x{width}", random_frame(height, width), SPEC)
    for height, width in ((64, 160), (31, 77), (1, 1)):
        yield Case(f"{height}x{width} unscaled", random_frame(height, width), UNSCALED)
    odd = dataclasses.replace(SPEC, height=49, width=83, channels="BGR")
    for height, width in ((120, 200), (30, 40), (49, 83)):
        yield Case(f"{height}x{width} into odd sizes, BGR", random_frame(height, width), odd)
    for byte in (0, 255):
        yield Case(f"all {byte}", np.full((97, 132, 3), byte, np.uint8), SPEC)
    edges = np.where(random_frame(150, 256) > 127, np.uint8(255), np.uint8(0))
    yield Case("black and white", edges, SPEC)
    large = random_frame(150, 260)
    yield Case("rows apart", large[20:110, 8:208], SPEC)  # whole words
    yield Case("rows apart by odd numbers", random_frame(150, 259)[:, 1:201], SPEC)
