"""Streets as data: for training, rendered once into memory-mapped arrays by worker processes that run beside it; for
``proscale-deploy evaluate --dataset folder``, written as images and COCO's panoptic format::

    python -m samples.street.dataset --output DIR --count 200
"""

import argparse
import json
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.pool import AsyncResult, Pool
from pathlib import Path
from typing import TypeVar

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.files import replacing
from proscale_deploy.core.types import Size
from proscale_deploy.runtime import write_image
from samples.street.world import CLASSES, Scene

__all__ = ["HELD_OUT_SEEDS", "MAX_SEGMENTS", "VALIDATION_SEEDS", "Cache", "frame_time", "write_dataset"]

HELD_OUT_SEEDS = range(1_000_000, 1_000_200)
"""Streets of the final evaluation; training seeds count from 0."""
VALIDATION_SEEDS = range(2_000_000, 2_000_050)
"""Streets looked at during training."""
MAX_SEGMENTS = 96

_Scalar = TypeVar("_Scalar", bound=np.generic)


def frame_time(seed: int) -> float:
    """The moment (seconds) at which the street of ``seed`` is looked at."""
    return float(np.random.default_rng((seed, 7)).uniform(0, 8))


class Cache:
    """``len(seeds)`` frames in one folder; an index may be read once ``ready[index]`` is set."""

    def __init__(self, folder: Path, seeds: Sequence[int], size: Size) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.seeds, self.size = folder, seeds, size
        count = len(seeds)
        self.images: NDArray[np.uint8] = self._open("images", np.uint8, (count, *size, 3))
        """RGB."""
        self.maps: NDArray[np.uint8] = self._open("maps", np.uint8, (count, *size))
        """Index of the segment of every pixel."""
        self.classes: NDArray[np.int8] = self._open("classes", np.int8, (count, MAX_SEGMENTS))
        """Class of every segment, -1 from the last on."""
        self.ready: NDArray[np.uint8] = self._open("ready", np.uint8, (count,))

    def _open(self, name: str, dtype: type[_Scalar], shape: tuple[int, ...]) -> NDArray[_Scalar]:
        path = self.folder / f"{name}.bin"
        if not path.exists() or path.stat().st_size != int(np.prod(shape)) * np.dtype(dtype).itemsize:
            return np.memmap(path, dtype, "w+", shape=shape)
        return np.memmap(path, dtype, "r+", shape=shape)

    def render(self, index: int) -> None:
        """Fill one entry, unless it is filled."""
        if self.ready[index]:
            return
        seed = self.seeds[index]
        image, ids, segments = Scene(seed).frame(frame_time(seed), self.size)
        segments = segments[:MAX_SEGMENTS]
        table = np.zeros(max(s.id for s in segments) + 1, np.uint8)
        table[[s.id for s in segments]] = np.arange(len(segments))
        self.images[index] = image[:, :, ::-1]
        self.maps[index] = table[ids]
        self.classes[index] = -1
        self.classes[index, : len(segments)] = [s.class_id for s in segments]
        self.ready[index] = 1

    def start(self, workers: int) -> tuple[Pool, "AsyncResult[list[None]]"]:
        """Render what is missing in the background; keep the pool until the result is there."""
        pool = get_context("spawn").Pool(workers, _open_in_worker, (self.folder, self.seeds, self.size))
        return pool, pool.map_async(_render_in_worker, np.flatnonzero(self.ready == 0).tolist(), chunksize=8)


_worker_cache: Cache | None = None


def _open_in_worker(folder: Path, seeds: Sequence[int], size: Size) -> None:
    global _worker_cache
    cv2.setNumThreads(1)
    _worker_cache = Cache(folder, seeds, size)


def _render_in_worker(index: int) -> None:
    if _worker_cache is not None:
        _worker_cache.render(index)


def write_dataset(folder: Path, seeds: Sequence[int], size: Size) -> None:
    """Write ``images/SEED.png``, ``panoptic/SEED.png`` and ``panoptic.json``, one moment of every street."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "panoptic").mkdir(exist_ok=True)
    images, annotations = [], []
    with click.progressbar(seeds, label="streets", file=sys.stderr) as progress:
        for seed in progress:
            image, ids, segments = Scene(seed).frame(frame_time(seed), size)
            name = f"{seed}.png"
            write_image(folder / "images" / name, image)
            write_image(folder / "panoptic" / name, np.stack([ids >> 16, ids >> 8, ids], axis=-1).astype(np.uint8))
            images.append({"id": seed, "file_name": name, "height": size[0], "width": size[1]})
            infos = [{"id": s.id, "category_id": s.class_id, "area": s.area, "iscrowd": 0} for s in segments]
            annotations.append({"image_id": seed, "file_name": name, "segments_info": infos})
    categories = [{"id": i, "name": c.name, "isthing": int(c.is_thing)} for i, c in enumerate(CLASSES)]
    with replacing(folder / "panoptic.json") as temporary:
        content = {"images": images, "annotations": annotations, "categories": categories}
        temporary.write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    options = argparse.ArgumentParser(description="Write held-out streets as a data set.")
    options.add_argument("--output", type=Path, required=True, help="the folder to write")
    options.add_argument("--count", type=int, default=len(HELD_OUT_SEEDS), help="streets; default: %(default)s")
    options.add_argument("--size", type=int, nargs=2, default=(192, 320), metavar=("HEIGHT", "WIDTH"))
    chosen = options.parse_args()
    cv2.setNumThreads(1)
    write_dataset(chosen.output, HELD_OUT_SEEDS[: chosen.count], tuple(chosen.size))


if __name__ == "__main__":
    main()
