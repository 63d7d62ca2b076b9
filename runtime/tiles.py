"""Full-size mask logits, computed only where they matter.

The official code enlarges every mask bilinearly twice: by 4 to the padded network input, then, cropped to the image, to
the frame. Both steps are linear, separable, and only average: an output row is a weighted mean of at most 4 mask rows.
So the output is cut into small tiles. Every pixel of a tile lies between the least and the greatest logit of a small
window of the mask (``bounds``), which settles most tiles without looking at pixels; the pixels of the others are two
small matrix products, rows @ window @ columns (``logits``).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from proscale_deploy.core.types import Placement, Size
from proscale_deploy.runtime.taps import Taps

__all__ = ["TileGrid", "tile_grid"]

_TILE = 16
"""T, the edge of a tile in output pixels."""

_ROUNDING = 2e-6
"""Bounds are widened by this share of the greatest logit: a few times the float32 error of an interpolated one."""

_Scalar = TypeVar("_Scalar", bound=np.generic)


class TileGrid:
    """The output image as n tiles of T x T pixels, numbered row by row.

    Samples are the points at which logits become probabilities: the output pixels themselves, or, for models that
    resize scores instead of masks, the pixels of the network input under a tile.
    """

    def __init__(self, mask_hw: Size, placement: Placement, resize_masks_first: bool) -> None:
        self._y, self._x = (
            _Axis.make(*sizes, resize_masks_first)
            for sizes in zip(mask_hw, placement.padded_hw, placement.resized_hw, placement.source_hw, strict=True)
        )
        self.samples_per_tile = self._y.masks.weight.shape[1] * self._x.masks.weight.shape[1]
        valid = self._y.valid[:, None, :, None] & self._x.valid[None, :, None, :]
        self.valid: NDArray[np.bool_] = valid.reshape(-1, _TILE, _TILE)
        """(n, T, T): which pixels lie inside the image; tiles at the right and bottom edge reach beyond."""

    def __len__(self) -> int:
        return len(self.valid)

    def bounds(self, masks: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Masks (Q, h, w) -> the least and the greatest logit that each may have in each tile, (Q, n) both."""
        slack = np.float32(_ROUNDING * max(masks.max(initial=0), -masks.min(initial=0)))
        return self._extreme(np.minimum, masks) - slack, self._extreme(np.maximum, masks) + slack

    def logits(
        self, masks: NDArray[np.float32], query: int | NDArray[np.intp], tiles: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Mask logits at the samples of some tiles.

        Args:
            masks: (Q, h, w).
            query: one index, or (q,) indices.
            tiles: (t,) numbers.

        Returns:
            (t, samples, samples), for several queries (q, t, samples, samples).
        """
        row, column = self._position(tiles)
        y, x = self._y.masks, self._x.masks
        windows = sliding_window_view(masks, (y.size, x.size), axis=(1, 2))
        if not isinstance(query, int):
            query = query[:, None]
        samples: NDArray[np.float32] = (
            y.weight[row] @ windows[query, y.start[row], x.start[column]] @ x.transposed[column]
        )
        return samples

    def pixels(self, samples: NDArray[np.float32], tiles: NDArray[np.intp]) -> NDArray[np.float32]:
        """From samples (..., t, samples, samples) to output pixels (..., t, T, T)."""
        if self._y.samples is None or self._x.samples is None:
            return samples
        row, column = self._position(tiles)
        pixels: NDArray[np.float32] = np.matmul(
            self._y.samples.weight[row] @ samples, self._x.samples.transposed[column]
        )
        return pixels

    def join(self, tiles: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """All tiles (n, T, T) -> image (H, W)."""
        rows, columns = len(self._y.valid), len(self._x.valid)
        image = tiles.reshape(rows, columns, _TILE, _TILE).swapaxes(1, 2).reshape(rows * _TILE, columns * _TILE)
        return np.ascontiguousarray(image[: self._y.length, : self._x.length])

    def crop(
        self, mask: NDArray[np.bool_], tiles: NDArray[np.intp]
    ) -> tuple[tuple[int, int, int, int], NDArray[np.bool_]]:
        """A mask given in some tiles, (t, T, T) -> its box (left, top, right, bottom) and the mask inside the box."""
        if not mask.any():
            return (0, 0, 0, 0), np.zeros((0, 0), np.bool_)
        row, column = self._position(tiles)
        row_0, column_0 = row.min(), column.min()
        canvas = np.zeros((row.max() - row_0 + 1, _TILE, column.max() - column_0 + 1, _TILE), np.bool_)
        canvas[row - row_0, :, column - column_0] = mask
        canvas = canvas.reshape(canvas.shape[0] * _TILE, canvas.shape[2] * _TILE)
        rows, columns = np.flatnonzero(canvas.any(axis=1)), np.flatnonzero(canvas.any(axis=0))
        top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        y, x = int(row_0) * _TILE, int(column_0) * _TILE
        return (x + left, y + top, x + right, y + bottom), canvas[top:bottom, left:right].copy()

    def _position(self, tiles: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return np.divmod(tiles, len(self._x.valid))

    def _extreme(self, which: np.ufunc, masks: NDArray[np.float32]) -> NDArray[np.float32]:
        for axis, windows in ((1, self._y.masks), (2, self._x.masks)):
            extreme = masks.take(windows.start, axis)
            for offset in range(1, windows.size):
                which(extreme, masks.take(windows.start + offset, axis), out=extreme)
            masks = extreme
        return masks.reshape(len(masks), len(self))


@lru_cache(maxsize=4)
def tile_grid(mask_hw: Size, placement: Placement, resize_masks_first: bool = True) -> TileGrid:
    """The grid of one placement. Kept for the next frame: a video has one size."""
    return TileGrid(mask_hw, placement, resize_masks_first)


class _Windows:
    """Taps in groups: samples of tile i = ``weight[i]`` (samples, size) @ input[start[i] : start[i] + size]."""

    def __init__(self, taps: Taps, samples: int, input_size: int) -> None:
        index = taps.index.reshape(-1, samples, taps.index.shape[1])
        first, last = index.min(axis=(1, 2)), index.max(axis=(1, 2))
        self.size = int((last - first).max()) + 1
        self.start: NDArray[np.intp] = np.minimum(first, input_size - self.size)
        self.weight = np.zeros((len(index), samples, self.size), np.float32)
        tile, sample = np.ogrid[: len(index), :samples]
        place = (tile[..., None], sample[..., None], index - self.start[:, None, None])
        np.add.at(self.weight, place, taps.weight.reshape(index.shape))
        self.transposed: NDArray[np.float32] = np.ascontiguousarray(self.weight.swapaxes(1, 2))


@dataclass(frozen=True)
class _Axis:
    """Rows or columns of a :class:`TileGrid`."""

    length: int
    """Output pixels."""
    valid: NDArray[np.bool_]
    """(tiles, T)"""
    masks: _Windows
    """From mask logits to samples."""
    samples: _Windows | None
    """From samples to output pixels; None where they are the same."""

    @classmethod
    def make(cls, mask: int, padded: int, resized: int, source: int, resize_masks_first: bool) -> "_Axis":
        pixel = np.arange(-(-source // _TILE) * _TILE)
        valid = (pixel < source).reshape(-1, _TILE)
        enlarge = Taps.bilinear(mask, padded)
        resize = Taps.bilinear(resized, source)[np.minimum(pixel, source - 1)]
        if resize_masks_first:
            return cls(source, valid, _Windows(resize.after(enlarge), _TILE, mask), None)
        windows = _Windows(resize, _TILE, resized)
        sample: NDArray[Any] = windows.start[:, None] + np.arange(windows.size)
        return cls(source, valid, _Windows(enlarge[sample.ravel()], windows.size, mask), windows)
