"""From a frame to the network's input, exactly as detectron2 prepares test images.

The frame is scaled with Pillow's bilinear filter (antialiased when it shrinks), put at the top left of the network's
fixed size, normalised, and padded with zeros *after* normalisation. Scaled pixels are bytes, so ``(x - mean) / std``
has 256 values per channel: one table look-up does conversion, normalisation and the change to planes.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import InputSpec, Placement, Size

__all__ = ["check_frame", "place", "preprocess"]


def place(source_hw: Size, spec: InputSpec) -> Placement:
    """Where a frame of ``source_hw`` pixels lies in the network's input.

    The scaled size is the one of the test-time rule (``ResizeShortestEdge.get_output_shape`` in detectron2, edge
    lengths from ``spec``) where it fits, otherwise the largest one of the same aspect ratio that fits.

    Raises:
        InputError: the frame has no pixels.
    """
    height, width = source_hw
    if height < 1 or width < 1:
        raise InputError(f"a frame of {height}x{width} pixels has nothing to segment; expected at least 1x1")
    resized = _shortest_edge_size(source_hw, spec)
    if resized[0] > spec.height or resized[1] > spec.width:
        scale = min(spec.height / height, spec.width / width)
        resized = min(_round(height * scale), spec.height), min(_round(width * scale), spec.width)
    return Placement((height, width), resized, (spec.height, spec.width))


def preprocess(
    frame: NDArray[np.uint8], spec: InputSpec, out: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float32], Placement]:
    """Scale, normalise and pad one frame.

    Args:
        frame: (H, W, 3) uint8, BGR.
        spec: what the network takes.
        out: where to write, (3, height, width) float32: a row of a batch. Every element is written.

    Returns:
        The network's input (3, height, width) float32, ``out`` if it was given, and the frame's place in it.

    Raises:
        InputError: the frame is not an 8-bit colour image, or ``out`` has another shape or dtype.
    """
    check_frame(frame)
    placement = place((frame.shape[0], frame.shape[1]), spec)
    shape = (3, spec.height, spec.width)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        raise InputError(f"expected out {shape} float32, found {out.shape} {out.dtype}")

    height, width = placement.resized_hw
    if placement.resized_hw != placement.source_hw:
        # Pillow filters each channel by itself: that the bytes are BGR does not matter to it. Columns first, one step
        # at a time: asked for both, Pillow 13 begins with the rows of tall frames, and rounds to other bytes.
        image = Image.fromarray(frame).resize((width, frame.shape[0]), Image.Resampling.BILINEAR)
        frame = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    planes = cv2.split(frame)
    grey_levels = np.arange(256, dtype=np.float32)
    for channel, mean, std in zip(range(3), spec.mean, spec.std, strict=True):
        table = (grey_levels - np.float32(mean)) / np.float32(std)
        plane = planes[2 - channel] if spec.channels == "RGB" else planes[channel]
        out[channel, :height, :width] = cv2.LUT(plane, table)
    out[:, height:] = 0
    out[:, :height, width:] = 0
    return out, placement


def _shortest_edge_size(source_hw: Size, spec: InputSpec) -> Size:
    """detectron2's test-time size, rounded as it rounds, but never below one pixel."""
    if spec.shortest_edge == 0:  # MIN_SIZE_TEST: 0 switches resizing off
        return source_hw
    scale = spec.shortest_edge / min(source_hw)
    height, width = (spec.shortest_edge if edge == min(source_hw) else scale * edge for edge in source_hw)
    if max(height, width) > spec.longest_edge:
        scale = spec.longest_edge / max(height, width)
        height, width = height * scale, width * scale
    return _round(height), _round(width)


def _round(length: float) -> int:
    return max(1, int(length + 0.5))


def check_frame(frame: NDArray[np.uint8]) -> None:
    """Raise unless ``frame`` is an 8-bit colour image.

    Raises:
        InputError: it is not.
    """
    if not isinstance(frame, np.ndarray):
        hint = "cv2.imread gives None for a file it cannot read" if frame is None else "convert it with numpy.asarray"
        raise InputError(
            f"not a frame: found a {type(frame).__name__}, expected a numpy array (height, width, 3) uint8 in BGR "
            f"order; {hint}"
        )
    found = f"found {frame.shape} {frame.dtype}, expected (height, width, 3) uint8 in BGR order"
    if frame.dtype == np.uint16:
        raise InputError(f"16-bit frame: {found}; convert it with (frame >> 8).astype('uint8')")
    if frame.dtype != np.uint8:
        raise InputError(f"frame of the wrong type: {found}; scale it to 0..255 and use frame.astype('uint8')")
    if frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 1):
        raise InputError(f"grey frame: {found}; convert it with cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)")
    if frame.ndim == 3 and frame.shape[2] == 4:
        raise InputError(
            f"frame with an alpha channel: {found}; convert it with cv2.cvtColor(frame, cv2.COLOR_BGRA2BGR)"
        )
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise InputError(f"not a frame: {found}")
