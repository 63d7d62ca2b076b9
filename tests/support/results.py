"""Small results with known content, and the classes they refer to."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Segment, Semantic
from proscale_deploy.runtime.streams.source import Frame

CLASSES = (
    ClassInfo("road", False, (128, 64, 128), 7),
    ClassInfo("sky", False, (70, 130, 180), 11),
    ClassInfo("car", True, (0, 0, 142), 300),
)
SIZE = (60, 80)


def frame(index: int = 0, name: str = "a", image: NDArray[np.uint8] | None = None) -> Frame:
    image = np.full((*SIZE, 3), 100, np.uint8) if image is None else image
    return Frame(image, name, index, 40 + index, index / 25)


def panoptic() -> Panoptic:
    """Sky in the top half (id 1), road below it (2), a car (3) across both, nothing in the corner."""
    ids = np.ones(SIZE, np.int32)
    ids[30:] = 2
    ids[20:40, 30:60] = 3
    ids[:10, :10] = 0
    segments = tuple(
        Segment(id_, class_id, class_id == 2, int((ids == id_).sum()), score)
        for id_, class_id, score in ((1, 1, 0.9), (2, 0, 0.875), (3, 2, 0.75))
    )
    return Panoptic(ids, segments)


def instances() -> Instances:
    """Two overlapping cars, the second partly under the first, then a hidden one, an empty one, and a poor one."""
    boxes = np.array([[10, 10, 30, 30], [20, 20, 50, 40], [12, 12, 14, 14], [0, 0, 0, 0], [60, 50, 70, 60]], np.int32)
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.1], np.float32)
    crops = tuple(np.ones((bottom - top, right - left), np.bool_) for left, top, right, bottom in boxes)
    crops[1][0, 0] = False
    return Instances(SIZE, scores, np.full(5, 2), boxes, crops)


def semantic() -> Semantic:
    """Sky over road, a car between; the scores grow downwards."""
    labels = np.ones(SIZE, np.int32)
    labels[30:] = 0
    labels[20:40, 30:60] = 2
    score = np.repeat(np.linspace(0, 1, SIZE[0], dtype=np.float32)[:, None], SIZE[1], axis=1)
    return Semantic(labels, score)


def listing(folder: Path) -> list[str]:
    """All files below a folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
