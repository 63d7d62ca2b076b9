"""The data that travels from frame to result. Arrays are C-contiguous numpy arrays; sizes are (height, width)."""

from dataclasses import dataclass
from typing import Literal, get_args

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
    ``longest_edge`` are the test-time resizing rule of the training configuration (INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST);
    a shortest edge of 0 switches resizing off. Raises InputError for values that no network could take.
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
        step = self.size_divisibility
        if min(self.height, self.width, step) < 1 or self.height % step or self.width % step:
            raise InputError(
                f"network input size must be positive multiples of {step}, found {self.height}x{self.width}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(deviation > 0 for deviation in self.std):
            raise InputError(
                f"PIXEL_MEAN and PIXEL_STD must be 3 numbers, those of PIXEL_STD positive, "
                f"found {self.mean} and {self.std}"
            )
        if self.channels not in ("RGB", "BGR"):
            raise InputError(f"channels must be RGB or BGR, found {self.channels!r}")
        if self.shortest_edge < 0 or self.longest_edge < 1:
            raise InputError(
                f"MIN_SIZE_TEST must be at least 0 and MAX_SIZE_TEST at least 1, "
                f"found {self.shortest_edge} and {self.longest_edge}"
            )


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the network input: scaled to ``resized_hw``, at the top left of ``padded_hw``.

    Raises InputError for an empty size, and where the scaled frame does not fit.
    """

    source_hw: Size
    resized_hw: Size
    padded_hw: Size

    def __post_init__(self) -> None:
        fits = all(edge <= limit for edge, limit in zip(self.resized_hw, self.padded_hw, strict=True))
        if min(*self.source_hw, *self.resized_hw) < 1 or not fits:
            raise InputError(f"expected positive sizes, and the scaled frame inside the padded one; found {self}")


@dataclass(frozen=True)
class RawOutput:
    """The network's outputs for one image, float32, straight logits (no softmax, no sigmoid).

    Raises InputError for other shapes or dtypes, and where Q or K is 0.
    """

    class_logits: NDArray[np.float32]
    """(Q, K+1); the last column is "no object"."""
    mask_logits: NDArray[np.float32]
    """(Q, h, w) at a quarter of the padded input size."""

    def __post_init__(self) -> None:
        classes, masks = self.class_logits, self.mask_logits
        fit = classes.ndim == 2 and masks.ndim == 3 and len(classes) == len(masks)
        if not fit or classes.shape[1] < 2 or not masks.size or {classes.dtype, masks.dtype} != {np.dtype(np.float32)}:
            raise InputError(
                "expected class_logits (Q, K+1) and mask_logits (Q, h, w), float32, of at least one query and class, "
                f"found {classes.shape} {classes.dtype} and {masks.shape} {masks.dtype}"
            )


@dataclass(frozen=True)
class Thresholds:
    """How logits become results; the names of MODEL.MASK_FORMER.TEST and TEST in the YAML stand in brackets.

    Raises InputError for shares outside 0..1, for no instances at all, and for tasks that do not exist.
    """

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

    def __post_init__(self) -> None:
        if not (0 <= self.object_mask <= 1 and 0 <= self.overlap <= 1 and self.max_instances >= 1):
            raise InputError(f"expected object_mask and overlap from 0 to 1, max_instances at least 1; found {self}")
        if not self.tasks or not set(self.tasks) <= set(get_args(Task)):
            raise InputError(f"expected tasks out of {', '.join(get_args(Task))}; found {self.tasks}")


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
