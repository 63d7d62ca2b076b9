"""Pictures of how two stations differ: heat maps of their outputs, and the pixels that they name differently."""

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import Instances, Panoptic, Placement, RawOutput, Result, Semantic

__all__ = ["Picture", "class_error_map", "differing_pixels", "mask_error_map"]

Picture = NDArray[np.uint8]
"""(H, W, 3) BGR."""


def mask_error_map(a: RawOutput, b: RawOutput, placement: Placement) -> tuple[Picture, float]:
    """Where in the frame mask logits differ: at every pixel the root mean square over the queries of B - A.

    Returns:
        The heat map, of the frame's shape at a quarter of the network's size; the error that is its brightest colour.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of outputs that have overflowed
        error = np.sqrt(np.mean((b.mask_logits - a.mask_logits) ** 2, axis=0))
    stride = placement.padded_hw[0] / error.shape[0]
    height, width = (max(1, round(edge / stride)) for edge in placement.resized_hw)
    return _heat(error[:height, :width])


def class_error_map(a: RawOutput, b: RawOutput) -> tuple[Picture, float]:
    """|B - A| of the class logits, a row per query and a column per class, and the error of the brightest colour."""
    return _heat(np.abs(b.class_logits - a.class_logits))


def differing_pixels(frame: Picture, a: Result, b: Result) -> tuple[Picture, float]:
    """The frame in grey, red where B sees another class than A, and the share of such pixels in percent."""
    differ = _classes(a) != _classes(b)
    picture = np.repeat((cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) // 2 + 60)[:, :, None], 3, axis=2).astype(np.uint8)
    picture[differ] = (40, 40, 230)
    return picture, 100 * float(differ.mean())


def _heat(error: NDArray[np.floating]) -> tuple[Picture, float]:
    """The brightest colour too for NaN and infinite errors, which its number leaves out."""
    known = np.isfinite(error)
    greatest = float(error.max(where=known, initial=0))
    scaled = np.where(known, 255 * error / (greatest or 1), 255).astype(np.uint8)
    scale = max(1, 256 // max(scaled.shape))
    colored = np.asarray(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO), np.uint8)
    return np.repeat(np.repeat(colored, scale, axis=0), scale, axis=1), greatest


def _classes(result: Result) -> NDArray[np.int32]:
    """(H, W): the class seen at every pixel, -1 for none; of instances the best that scores at least 1/2."""
    if isinstance(result, Semantic):
        return result.map
    if isinstance(result, Instances):
        sure = int((result.scores >= 0.5).sum())
        return np.array([-1, *result.classes[:sure].tolist()], np.int32)[result.id_map(sure)]
    return _panoptic_classes(result)


def _panoptic_classes(result: Panoptic) -> NDArray[np.int32]:
    table = np.full(max((segment.id for segment in result.segments), default=0) + 1, -1, np.int32)
    for segment in result.segments:
        table[segment.id] = segment.class_id
    return table[result.map]
