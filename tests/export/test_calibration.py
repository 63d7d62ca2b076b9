"""Which pictures are taken, and what is said about them."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy.core.errors import PrecisionError
from proscale_deploy.export.calibration import CalibrationImages, evenly, sample


def frames(count: int) -> Iterator[NDArray[np.uint8]]:
    return (np.full((2, 2, 3), index % 256, np.uint8) for index in range(count))


def prepare(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    return frame.transpose(2, 0, 1).astype(np.float32)


def taken(images: CalibrationImages) -> list[int]:
    return [int(array[0, 0, 0]) for array in images.arrays]


def test_all_of_a_few() -> None:
    images = sample(frames(5), prepare, "pictures", count=8, minimum=5)
    assert taken(images) == [0, 1, 2, 3, 4]
    assert (images.arrays.shape, images.arrays.dtype) == ((5, 3, 2, 2), np.float32)
    assert (images.facts.source, images.facts.images) == ("pictures", 5)


@pytest.mark.parametrize("length", [9, 16, 17, 100, 255])
def test_evenly_over_a_stream_of_unknown_length(length: int) -> None:
    indexes = taken(sample(frames(length), prepare, "video", count=8, minimum=1))
    assert len(indexes) == 8
    assert indexes[0] == 0
    assert indexes[-1] >= 0.7 * (length - 1)
    steps = np.diff(indexes)
    assert steps.max() <= 2 * steps.min()


def test_too_few() -> None:
    with pytest.raises(PrecisionError, match="a/folder: found 3 images to calibrate with, needed are at least 16"):
        sample(frames(3), prepare, "a/folder")
    with pytest.raises(PrecisionError, match="found 0 images"):
        sample(frames(0), prepare, "a/folder")


def test_the_hash_is_of_the_pictures_in_their_order() -> None:
    def digest(pictures: list[NDArray[np.uint8]], source: str = "x") -> str:
        return sample(iter(pictures), prepare, source, minimum=1).facts.sha256

    pictures = list(frames(4))
    assert digest(pictures) == digest(list(frames(4)), "another name")
    others = [digest(pictures[:3]), digest(pictures[::-1])]
    pictures[2] = pictures[2].copy()
    pictures[2][0, 0, 0] += 1
    others.append(digest(pictures))
    assert len({digest(list(frames(4))), *others}) == 4


@pytest.mark.parametrize(("length", "count", "expected"), [(3, 5, [0, 1, 2]), (10, 5, [0, 2, 4, 6, 8]), (0, 5, [])])
def test_evenly(length: int, count: int, expected: list[int]) -> None:
    assert evenly(range(length), count) == expected
