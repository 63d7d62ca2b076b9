"""Tiny data sets in the layouts of their publishers, written to disk."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image


def write_map(path: Path, values: ArrayLike, dtype: type[np.generic] = np.uint8) -> Path:
    """A PNG of one channel, 8 or 16 bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values).astype(dtype)).save(path)
    return path


def write_ids(path: Path, ids: ArrayLike) -> Path:
    """A panoptic PNG, written as COCO's ``id2rgb`` says: R is the lowest byte."""
    numbers = np.asarray(ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([numbers // 256**k % 256 for k in range(3)], axis=-1).astype(np.uint8)).save(path)
    return path


def write_image(path: Path, size: tuple[int, int] = (4, 6)) -> Path:
    """Any image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)
    return path


def write_panoptic(
    annotations: Path,
    maps: Path,
    truth: Mapping[str, tuple[ArrayLike, Sequence[tuple[int, int, int]]]],
    categories: Sequence[Mapping[str, Any]],
    image_name: str = "{}.jpg",
) -> Path:
    """COCO's panoptic JSON and its maps; ``truth``: image id -> map, [(segment id, category id, iscrowd)]."""
    entries = []
    for name, (ids, segments) in truth.items():
        write_ids(maps / f"{name}.png", ids)
        infos = [
            {"id": i, "category_id": c, "iscrowd": crowd, "area": int((np.asarray(ids) == i).sum())}
            for i, c, crowd in segments
        ]
        entries.append({"image_id": name, "file_name": f"{name}.png", "segments_info": infos})
    images = [{"id": name, "file_name": image_name.format(name)} for name in truth]
    annotations.parent.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps({"images": images, "annotations": entries, "categories": list(categories)}))
    return annotations
