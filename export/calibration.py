"""The real pictures that the ranges of an INT8 file come from: sampled, counted, hashed."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import PrecisionError
from proscale_deploy.core.manifest import Calibration

__all__ = ["MINIMUM_IMAGES", "SAMPLED_IMAGES", "CalibrationImages", "evenly", "sample"]

MINIMUM_IMAGES: Final = 16
"""Fewer say too little about the tails of the activations."""
SAMPLED_IMAGES: Final = 32
"""Taken of what is given: more change the ranges little and cost time."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class CalibrationImages:
    """Network inputs, and the facts about them that go into the file."""

    arrays: NDArray[np.float32]
    """(N, 3, height, width), normalised and padded."""
    facts: Calibration


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` of the items, evenly spaced, the first one among them."""
    taken = min(count, len(items))
    return [items[index * len(items) // taken] for index in range(taken)]


def sample(
    frames: Iterable[NDArray[np.uint8]],
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    source: str,
    *,
    count: int = SAMPLED_IMAGES,
    minimum: int = MINIMUM_IMAGES,
) -> CalibrationImages:
    """Up to ``count`` frames, evenly spaced over a stream of any length, as network inputs.

    Args:
        frames: (H, W, 3) uint8 BGR; iterated once, at most twice ``count`` of them in memory.
        prepare: frame -> network input (3, height, width).
        source: what the user gave, for messages and the metadata.
        count: the most that are taken.
        minimum: the fewest that will do.

    Raises:
        PrecisionError: there are fewer than ``minimum`` frames.
    """
    kept: list[NDArray[np.uint8]] = []
    step = 1
    for index, frame in enumerate(frames):
        if index % step:
            continue
        kept.append(frame)
        if len(kept) == 2 * count:  # half as dense from here on
            del kept[1::2]
            step *= 2
    if len(kept) < minimum:
        raise PrecisionError(
            f"{source}: found {len(kept)} images to calibrate with, needed are at least {minimum}: give a folder, a "
            "glob or a video of what the model will see in use"
        )
    chosen = evenly(kept, count)
    arrays = np.stack([prepare(frame) for frame in chosen])
    digest = hashlib.sha256(str(arrays.shape).encode())
    digest.update(arrays.tobytes())
    return CalibrationImages(arrays, Calibration(source, len(chosen), digest.hexdigest()))
