"""Results drawn on their frame: tinted segments with outlines and names, and a strip of classes with their shares."""

import colorsys
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Result, Size

__all__ = ["INSTANCE_SCORE", "OPACITY", "ClassShare", "class_shares", "overlay", "render"]

INSTANCE_SCORE = 0.5
"""Instances that score less are not drawn: the lists are padded with guesses. Saved results hold them all."""

OPACITY = 0.5
"""Of the tint, where nothing else is asked for."""
_MAX_LABELS = 40
"""Names are written on the largest segments only."""
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK, _PAPER = (255, 255, 255), (24, 24, 24)

Color = tuple[int, int, int]
"""BGR."""


@dataclass(frozen=True)
class ClassShare:
    """What is drawn of one class."""

    class_id: int
    share: float
    """Of the frame's pixels, 0..1."""
    count: int
    """Things; for what is not a thing, segments: usually 1."""


@dataclass(frozen=True)
class _Region:
    """Pixels of one colour."""

    id: int
    """Its value in the id map; 0 is no region."""
    class_id: int
    area: int
    label: str
    color: Color


def render(frame: NDArray[np.uint8], result: Result, classes: tuple[ClassInfo, ...]) -> NDArray[np.uint8]:
    """:func:`overlay` with a legend below it, (H + h, W, 3) uint8 BGR; h depends on the size of the frame only.

    The legend names the classes that are seen, how many things of each, and their shares of the frame; where they do
    not fit, the smallest are left out and counted.

    Raises:
        InputError: the result belongs to a frame of another size.
    """
    ids, regions = _regions_of(frame, result, classes)
    strip = _legend((frame.shape[0], frame.shape[1]), regions, classes)
    return np.concatenate([_overlay(frame, ids, regions, OPACITY), strip])


def overlay(
    frame: NDArray[np.uint8],
    result: Result,
    classes: tuple[ClassInfo, ...],
    opacity: float = OPACITY,
    longest_side: int | None = None,
) -> NDArray[np.uint8]:
    """The frame (H, W, 3) BGR tinted with the colours of the classes, each thing in a shade of its own, with outlines
    and names. Pixels of no segment stay as they are. The frame itself is not changed.

    ``opacity`` is that of the tint: at 0 outlines and names alone are drawn, at 1 nothing of a segment shines through.
    A frame larger than ``longest_side`` is reduced to it first: drawing takes time by the pixel.

    Raises:
        InputError: the result belongs to a frame of another size, or the opacity is not in 0..1.
    """
    if not 0 <= opacity <= 1:
        raise InputError(f"expected an opacity from 0 to 1, found {opacity}")
    ids, regions = _regions_of(frame, result, classes)
    if longest_side is not None and longest_side < max(ids.shape):
        frame, ids, regions = _reduced(frame, ids, regions, longest_side)
    return _overlay(frame, ids, regions, opacity)


def class_shares(result: Result, classes: tuple[ClassInfo, ...]) -> list[ClassShare]:
    """The classes that :func:`overlay` draws of the result, in the order of ``classes``."""
    ids, regions = _regions(result, classes)
    return _shares((ids.shape[0], ids.shape[1]), regions)


def _overlay(
    frame: NDArray[np.uint8], ids: NDArray[np.uint16], regions: list[_Region], opacity: float
) -> NDArray[np.uint8]:
    if not regions:
        return frame.copy()
    color = _paint(ids, regions)
    image = cv2.addWeighted(frame, 1 - opacity, color, opacity, 0)
    light = cv2.convertScaleAbs(color, alpha=0.6, beta=100)
    outline = cv2.morphologyEx(ids, cv2.MORPH_GRADIENT, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    cv2.copyTo(light, (outline > 0).view(np.uint8), image)
    cv2.copyTo(frame, (ids == 0).view(np.uint8), image)
    _write_names(image.astype(np.uint8, copy=False), ids, regions)
    return image.astype(np.uint8, copy=False)


def _legend(size: Size, regions: list[_Region], classes: tuple[ClassInfo, ...]) -> NDArray[np.uint8]:
    height, width = size
    scale = _text_scale(height, width)
    strip = np.full((2 * round(16 * scale) + 2, width, 3), _PAPER, np.uint8)
    found = _shares(size, regions)

    def text(item: ClassShare) -> str:
        info = classes[item.class_id]
        times = f" x{item.count}" if info.is_thing and item.count > 1 else ""
        share = f"{100 * item.share:.1f}%" if item.share >= 0.001 else "<0.1%"
        return f"{info.name}{times} {share}"

    gap, box = round(10 * scale), round(13 * scale)
    room = width - gap - _text_width("+99", scale)
    shown: list[ClassShare] = []
    for item in sorted(found, key=lambda i: -i.share):
        room -= box + 2 * gap + _text_width(text(item), scale)
        if room < 0:
            break
        shown.append(item)
    x, middle = gap, strip.shape[0] // 2
    for item in sorted(shown, key=lambda i: i.class_id):  # in a fixed order, so that a video's legend does not jump
        color = _bgr(classes[item.class_id])
        cv2.rectangle(strip, (x, middle - box // 2), (x + box, middle - box // 2 + box), color, cv2.FILLED)
        x += box + gap // 2
        x += _put_text(strip, text(item), (x, middle), scale, _INK) + gap + gap // 2
    if len(shown) < len(found):
        _put_text(strip, f"+{len(found) - len(shown)}", (x, middle), scale, _INK)
    return strip


def _shares(size: Size, regions: list[_Region]) -> list[ClassShare]:
    """By class, in the order of the classes."""
    areas: dict[int, list[int]] = {}
    for region in regions:
        areas.setdefault(region.class_id, []).append(region.area)
    return [ClassShare(c, sum(areas[c]) / (size[0] * size[1]), len(areas[c])) for c in sorted(areas)]


def _regions_of(
    frame: NDArray[np.uint8], result: Result, classes: tuple[ClassInfo, ...]
) -> tuple[NDArray[np.uint16], list[_Region]]:
    ids, regions = _regions(result, classes)
    if ids.shape != frame.shape[:2]:
        raise InputError(f"the result is {ids.shape[0]}x{ids.shape[1]}, the frame {frame.shape[0]}x{frame.shape[1]}")
    return ids, regions


def _regions(result: Result, classes: tuple[ClassInfo, ...]) -> tuple[NDArray[np.uint16], list[_Region]]:
    """The id map (H, W) and its regions."""
    if isinstance(result, Panoptic):
        found = [(s.id, s.class_id, s.area, s.score if s.is_thing else None) for s in result.segments]
        ids = result.map.astype(np.uint16)
    elif isinstance(result, Instances):
        ids, found = _stack(result)
    else:
        ids = result.map.astype(np.uint16) + np.uint16(1)
        areas = _areas(ids, len(classes))
        found = [(i, i - 1, areas[i], None) for i in range(1, len(areas)) if areas[i]]

    regions, seen = [], dict.fromkeys(range(len(classes)), 0)
    for id_, class_id, area, score in found:
        info = classes[class_id]
        shade = _shade(_bgr(info), seen[class_id] if score is not None else 0)
        label = info.name if score is None else f"{info.name} {100 * score:.0f}%"
        regions.append(_Region(id_, class_id, area, label, shade))
        seen[class_id] += 1
    return ids, regions


def _reduced(
    frame: NDArray[np.uint8], ids: NDArray[np.uint16], regions: list[_Region], longest_side: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint16], list[_Region]]:
    height, width = ids.shape
    scale = longest_side / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    labels = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST).astype(np.uint16, copy=False)
    return small, labels, [replace(region, area=round(scale * scale * region.area)) for region in regions]


def _stack(result: Instances) -> tuple[NDArray[np.uint16], list[tuple[int, int, int, float | None]]]:
    """Instances laid over each other, the best on top."""
    drawn = int(np.count_nonzero(result.scores >= INSTANCE_SCORE))
    ids = result.id_map(drawn).astype(np.uint16)
    areas = _areas(ids, drawn)[1:]
    return ids, [(i + 1, int(result.classes[i]), areas[i], float(result.scores[i])) for i in range(drawn) if areas[i]]


def _areas(ids: NDArray[np.uint16], greatest: int) -> list[int]:
    """Pixels of the ids 0, 1, ..., ``greatest``; a fifth of the time of np.bincount."""
    return [int(n) for n in cv2.calcHist([ids], [0], None, [greatest + 1], [0, greatest + 1]).ravel()]


def _paint(ids: NDArray[np.uint16], regions: list[_Region]) -> NDArray[np.uint8]:
    """(H, W, 3): every pixel in its region's colour. Colours are looked up as 32-bit words, four bytes at once."""
    table = np.zeros((max(region.id for region in regions) + 1, 4), np.uint8)
    for region in regions:
        table[region.id, :3] = region.color
    words = np.take(table.view(np.uint32)[:, 0], ids, mode="clip")
    return cv2.cvtColor(words.view(np.uint8).reshape(*ids.shape, 4), cv2.COLOR_BGRA2BGR).astype(np.uint8, copy=False)


def _write_names(image: NDArray[np.uint8], ids: NDArray[np.uint16], regions: list[_Region]) -> None:
    """In the heart of each region, largest regions first, never over each other."""
    scale = _text_scale(*ids.shape)
    stride = max(1, min(ids.shape) // 135)  # the distance transform is the dear part of drawing
    small = np.ascontiguousarray(ids[::stride, ::stride])
    taken: list[tuple[int, int, int, int]] = []
    for region in sorted(regions, key=lambda r: -r.area)[:_MAX_LABELS]:
        width, height = _text_width(region.label, scale) + round(6 * scale), round(17 * scale)
        if region.area < width * height:
            continue
        inside = cv2.copyMakeBorder((small == region.id).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        x, y, depth = _heart(inside)
        if 2 * depth * stride < height:
            continue
        left = min(max(0, (x - 1) * stride - width // 2), image.shape[1] - width)
        top = min(max(0, (y - 1) * stride - height // 2), image.shape[0] - height)
        box = left, top, left + width, top + height
        if left < 0 or top < 0 or any(_overlap(box, other) for other in taken):
            continue
        taken.append(box)
        panel = image[top : box[3], left : box[2]]
        panel[:] = panel // 4 + np.array(_PAPER, np.uint8) // 2
        _put_text(image, region.label, (left + round(3 * scale), top + height // 2), scale, _INK)


def _heart(mask: NDArray[np.uint8]) -> tuple[int, int, float]:
    """(x, y) about as far from the mask's edge as one can get, in the middle of such points, and how far that is."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    depth = float(distance.max())
    y, x = np.nonzero(distance >= 0.9 * depth)
    middle = int(np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2))
    return int(x[middle]), int(y[middle]), depth


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _text_scale(height: int, width: int) -> float:
    """1 at 720p; text stays readable in small frames."""
    return max(0.75, min(height, width) / 720)


def _thickness(scale: float) -> int:
    return max(1, round(1.2 * scale))


def _text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, _FONT, 0.45 * scale, _thickness(scale))[0][0])


def _put_text(image: NDArray[np.uint8], text: str, at: tuple[int, int], scale: float, color: Color) -> int:
    """Write from ``at``, the left end of the text's middle line; gives the text's width."""
    origin = (at[0], at[1] + round(4.8 * scale))
    cv2.putText(image, text, origin, _FONT, 0.45 * scale, color, _thickness(scale), cv2.LINE_AA)
    return _text_width(text, scale)


def _bgr(info: ClassInfo) -> Color:
    red, green, blue = info.color
    return blue, green, red


def _shade(color: Color, index: int) -> Color:
    """The class's own colour for its first thing; for the others the golden ratio spreads lightness and hue evenly."""
    if index == 0:
        return color
    spread = (index * 0.618034) % 1 - 0.5
    hue, light, saturation = colorsys.rgb_to_hls(color[2] / 255, color[1] / 255, color[0] / 255)
    light = min(max(light, 0.3), 0.7) + 0.35 * spread
    red, green, blue = colorsys.hls_to_rgb((hue + 0.08 * spread) % 1, light, max(saturation, 0.3))
    return round(255 * blue), round(255 * green), round(255 * red)
