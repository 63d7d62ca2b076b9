"""The data that travels from frame to result. Arrays are C-contiguous numpy arrays; sizes are (height, width)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError

__all__ = [
    "ClassInfo",
    "InputSpec",
    "Instances",
    "Panoptic",
    "Placement",
    "RawOutput",
    "Result",
    "Segment",
    "Semantic",
    "Size",
    "Task",
    "Thresholds",
]

Size = tuple[int, int]
"""(height, width) in pixels."""

Task = Literal["panoptic", "instance", "semantic"]


@dataclass(frozen=True)
class ClassInfo:
    """One class of the data set, in the order of the network's logits."""

    name: str
    is_thing: bool
    color: tuple[int, int, int]
    """RGB, 0..255."""
    dataset_id: int | None = None
    """The category's id in the data set's annotations, for results in their format; None: the position in the list."""


@dataclass(frozen=True)
class InputSpec:
    """What the network takes: (batch, 3, height, width) float32, normalised and zero-padded bottom and right.

    ``mean`` and ``std`` are in grey levels (0..255), in the order of ``channels``. ``shortest_edge`` and
    ``longest_edge`` are the test-time resizing rule of the training configuration (INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST).
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channels: Literal["RGB", "BGR"]
    shortest_edge: int
    longest_edge: int
    size_divisibility: int = 32

    def __post_init__(self) -> None:
        if self.height <= 0 or self.width <= 0:
            raise InputError(f"network input size must be positive, found {self.height}x{self.width}")
        if self.height % self.size_divisibility or self.width % self.size_divisibility:
            raise InputError(
                f"network input size must be a multiple of {self.size_divisibility}, found {self.height}x{self.width}"
            )
        if min(self.std) <= 0:
            raise InputError(f"PIXEL_STD must be positive, found {self.std}")


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the network input: scaled to ``resized_hw``, at the top left of ``padded_hw``."""

    source_hw: Size
    resized_hw: Size
    padded_hw: Size


@dataclass(frozen=True)
class RawOutput:
    """The network's outputs for one image, float32, straight logits (no softmax, no sigmoid)."""

    class_logits: NDArray[np.float32]
    """(Q, K+1); the last column is "no object"."""
    mask_logits: NDArray[np.float32]
    """(Q, h, w) at a quarter of the padded input size."""

    def __post_init__(self) -> None:
        if self.class_logits.ndim != 2 or self.mask_logits.ndim != 3 or len(self.class_logits) != len(self.mask_logits):
            raise InputError(
                "expected class_logits (Q, K+1) and mask_logits (Q, h, w), "
                f"found {self.class_logits.shape} and {self.mask_logits.shape}"
            )


@dataclass(frozen=True)
class Thresholds:
    """How logits become results; the names of MODEL.MASK_FORMER.TEST and TEST in the YAML stand in brackets."""

    object_mask: float = 0.8
    """Panoptic: queries must score above this (OBJECT_MASK_THRESHOLD)."""
    overlap: float = 0.8
    """Panoptic: a segment whose visible share is below this is dropped (OVERLAP_THRESHOLD)."""
    max_instances: int = 100
    """Instances: the best (query, class) pairs kept per image (TEST.DETECTIONS_PER_IMAGE)."""
    tasks: tuple[Task, ...] = ("panoptic", "instance", "semantic")
    """What the model was trained to give (PANOPTIC_ON, INSTANCE_ON, SEMANTIC_ON). Instances of a panoptic model keep
    thing classes only."""
    resize_masks_first: bool = True
    """Semantic: masks are resized to the output before classes are summed; false for semantic-only models, which sum
    first and resize scores (SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE or PANOPTIC_ON or INSTANCE_ON)."""


@dataclass(frozen=True)
class Segment:
    """One entry of a panoptic map: ``id`` is its value in the map, ``area`` its pixels, ``score`` in 0..1."""

    id: int
    class_id: int
    is_thing: bool
    area: int
    score: float


@dataclass(frozen=True)
class Panoptic:
    """``map`` int32 (H, W) at the source size, 0 = no segment."""

    map: NDArray[np.int32]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Instances:
    """N instances by falling score, their masks cropped to their boxes."""

    size: Size
    scores: NDArray[np.float32]
    """(N,) in 0..1: class score times mean mask probability."""
    classes: NDArray[np.int64]
    """(N,)"""
    boxes: NDArray[np.int32]
    """(N, 4): left, top, right, bottom in pixels, right and bottom exclusive; an empty mask has an empty box."""
    crops: tuple[NDArray[np.bool_], ...]
    """N masks, each (bottom - top, right - left)."""

    def mask(self, index: int) -> NDArray[np.bool_]:
        """The full-size mask (H, W) of one instance."""
        full = np.zeros(self.size, np.bool_)
        left, top, right, bottom = self.boxes[index]
        full[top:bottom, left:right] = self.crops[index]
        return full

    def id_map(self, count: int) -> NDArray[np.int32]:
        """The first ``count`` instances in one map (H, W): index + 1 where one is, the best of several; 0 elsewhere."""
        ids = np.zeros(self.size, np.int32)
        for index in reversed(range(count)):
            left, top, right, bottom = self.boxes[index]
            np.copyto(ids[top:bottom, left:right], index + 1, where=self.crops[index])
        return ids


@dataclass(frozen=True)
class Semantic:
    """``map`` int32 (H, W): the best class of every pixel; ``score`` float32 (H, W): its summed score."""

    map: NDArray[np.int32]
    score: NDArray[np.float32]


Result = Panoptic | Instances | Semantic
