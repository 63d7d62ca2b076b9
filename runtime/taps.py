"""How an output pixel hangs on the pixels of a mask: the weights of the official bilinear resizes, axis by axis.

The official code enlarges mask logits bilinearly by 4 to the padded network input, crops them to the image, and resizes
them to the frame. Along one axis both steps are weighted sums of neighbours, and so is their composition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import Placement, Size

__all__ = ["TAP", "MaskPlan", "Taps", "mask_plan"]

TAP: Final = np.dtype([("first", np.int32), ("weight", np.float32, (2, 3)), ("share", np.float32)])
"""``ProscaleMaskTap`` of plugins/include/proscale/mask_api.h."""


class Taps:
    """One axis of a resize: each of n outputs is a weighted sum of k inputs; ``index`` and ``weight`` are (n, k)."""

    def __init__(self, index: NDArray[np.intp], weight: NDArray[np.float32]) -> None:
        self.index, self.weight = index, weight

    @classmethod
    def bilinear(cls, size: int, new_size: int) -> Taps:
        """``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``.

        Positions are computed in float32, as torch does it: some 1000 pixels from the corner that moves them by 1e-4.
        """
        scale, half = np.float32(size) / np.float32(new_size), np.float32(0.5)
        position = np.maximum(scale * (np.arange(new_size, dtype=np.float32) + half) - half, 0)
        left = np.minimum(position.astype(np.intp), size - 1)
        weight = np.clip(position - left.astype(np.float32), 0, 1)
        # A neighbour without weight is left out, so that it does not widen a window.
        right = np.where(weight > 0, np.minimum(left + 1, size - 1), left)
        return cls(np.stack([left, right], axis=1), np.stack([1 - weight, weight], axis=1))

    def __getitem__(self, outputs: NDArray[np.intp]) -> Taps:
        return Taps(self.index[outputs], self.weight[outputs])

    def after(self, first: Taps) -> Taps:
        """``first``, then this one, as one step."""
        index = first.index[self.index]
        weight = first.weight[self.index] * self.weight[..., None]
        return Taps(index.reshape(len(index), -1), weight.reshape(len(weight), -1))


@dataclass(frozen=True)
class MaskPlan:
    """How masks of one size come to lie in an output of one size, for the compiled post-processing."""

    mask_hw: Size
    output_hw: Size
    samples: int
    """1; 2 where scores are resized instead of masks, and the resize does something."""
    tables: NDArray[np.void]
    """(output height + output width,) of :data:`TAP`: rows, then columns. What a device needs a copy of."""


@lru_cache(maxsize=8)
def mask_plan(mask_hw: Size, placement: Placement, resize_masks_first: bool = True) -> MaskPlan:
    """The tables of one placement. Kept for the next frame: a video has one size."""
    tables = np.concatenate(
        [
            _axis(*sizes, resize_masks_first)
            for sizes in zip(mask_hw, placement.padded_hw, placement.resized_hw, placement.source_hw, strict=True)
        ]
    )
    tables.setflags(write=False)
    return MaskPlan(mask_hw, placement.source_hw, 2 if tables["share"].any() else 1, tables)


def _axis(mask: int, padded: int, resized: int, source: int, resize_masks_first: bool) -> NDArray[np.void]:
    enlarge, resize = Taps.bilinear(mask, padded), Taps.bilinear(resized, source)
    table = np.zeros(source, TAP)
    if resize_masks_first:
        samples = [resize.after(enlarge)]
    else:
        samples = [enlarge[resize.index[:, number]] for number in range(2)]
        table["share"] = resize.weight[:, 1]
    # So that all three of its pixels are in the mask.
    table["first"] = np.minimum(samples[0].index.min(axis=1), max(mask - 3, 0))
    for number, taps in enumerate(samples):
        # Enlarging takes two neighbours to two neighbours or to one, so that two steps span three pixels at most.
        place = taps.index - table["first"][:, None]
        np.add.at(table["weight"][:, number], (np.arange(source)[:, None], place), taps.weight)
    return table
