"""The plot of a sensitivity survey: two bars per block."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from proscale_deploy.export.sensitivity import BlockLoss

__all__ = ["write_plot"]

_COLOURS: Final = {"fp16": (90, 140, 200), "int8": (220, 120, 60)}
_ROW, _LEFT, _WIDTH, _TOP = 34, 180, 560, 48
"""Pixels: height of a block, where bars begin, length of the longest, height of the title."""


def write_plot(losses: Sequence[BlockLoss], path: Path) -> None:
    """A PNG: for every block the points of panoptic quality lost in FP16 and in INT8."""
    blocks = list(dict.fromkeys(entry.block for entry in losses))
    longest = max([entry.loss.pq for entry in losses if entry.loss.pq > 0], default=1.0)
    picture = Image.new("RGB", (_LEFT + _WIDTH + 90, _TOP + _ROW * len(blocks) + 12), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    draw.text((12, 12), "Points of PQ lost against FP32 when one block alone goes to", "black", font)
    place = 440.0
    for precision, colour in _COLOURS.items():
        draw.rectangle((place, 14, place + 14, 28), colour)
        draw.text((place + 20, 12), precision.upper(), "black", font)
        place += 80
    for entry in losses:
        top = _TOP + _ROW * blocks.index(entry.block)
        draw.text((12, top + 6), entry.block, "black", font)
        lane = list(_COLOURS).index(entry.precision)
        top += 2 + 14 * lane
        end = _LEFT + _WIDTH * max(0.0, entry.loss.pq) / longest
        draw.rectangle((_LEFT, top, max(end, _LEFT + 1), top + 11), _COLOURS[entry.precision])
        draw.text((end + 6, top - 3), f"{entry.loss.pq:.2f}", "black", font)
    picture.save(path)
