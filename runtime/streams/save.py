"""Results as files: in the formats of the COCO tools, or as plain arrays.

``json``: ``results.json``, a list with one entry per panoptic segment, instance, or semantic class of each image, as in
COCO's result files: image_id, category_id, score, bbox [left, top, width, height], segmentation (compressed RLE); and
file_name, here the name of the frame. The score of a semantic class is the mean over its pixels of the sum that
Mask2Former's ``semantic_inference`` compares, class probability times mask probability over all queries. It is no
probability: where queries agree it exceeds 1. An instance with an empty mask is listed with a box of no size.

``png``: one map per image.
    - panoptic: ``panoptic/NAME.png``, where R + 256 G + 65536 B is the id of the segment and 0 none, and
      ``panoptic.json``, COCO's panoptic results: {"annotations": [{image_id, file_name, segments_info: [{id,
      category_id, isthing, area, score}]}]}. There file_name is that of the PNG, as the COCO tools expect.
    - instance: the same as ``instance/NAME.png`` and ``instance.json``; where instances overlap, the best is seen, and
      one that is hidden is in neither file.
    - semantic: ``semantic/NAME.png``, one channel with the category_id of every pixel, 8 bit, or 16 if one needs it.

``npz``: ``npz/NAME.npz``, the fields of the result; see :func:`arrays`.

A category_id is the number of the class in its data set if the model knows it, otherwise its index.

Where the task of a stream is switched while it runs, ``results.json`` holds those of the first; those of the others are
in ``results_TASK.json``.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import MissingDependency
from proscale_deploy.core.files import check_output, replacing, temporary_name
from proscale_deploy.core.types import ClassInfo, Instances, Panoptic, Result, Semantic, Task
from proscale_deploy.runtime.image import write_image
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.stats import Segmented

__all__ = ["Format", "ResultWriter", "arrays", "category_id", "check_coco", "coco_results"]

Format = Literal["json", "png", "npz"]


class ResultWriter(Output):
    """Writes results to a folder; see the module for the files. JSON files are written as the results come and get
    their names when it is closed.

    Args:
        task: that the stream starts with.

    Raises:
        MissingDependency: ``json`` without pycocotools.
        InputError: the folder's parent is missing.
        OSError: the disk is full.
    """

    def __init__(self, folder: Path, formats: Iterable[Format], task: Task, classes: tuple[ClassInfo, ...]) -> None:
        self._folder, self._formats, self._task, self._classes = folder, frozenset(formats), task, classes
        self.name = f"{folder}/"
        self.written = 0
        """Frames."""
        self._lists: dict[str, _JsonList] = {}
        self._prepared: set[Task] = set()
        if "json" in self._formats:
            check_coco("--save json")
        if self._formats:
            self._prepare(task)

    @property
    def kept(self) -> str:
        frames = "1 frame" if self.written == 1 else f"{self.written} frames"
        return f"{self.name} (results of {frames})" if self._formats and self.written else ""

    def _prepare(self, task: Task) -> None:
        parts = {"png": self._folder / task, "npz": self._folder / "npz"}
        for path in (self._folder, *(part for name, part in parts.items() if name in self._formats)):
            if not path.is_dir():
                check_output(path)
                path.mkdir()
        if "json" in self._formats:
            name = "results.json" if task == self._task else f"results_{task}.json"
            self._lists[f"json {task}"] = _JsonList(self._folder / name, "[", "]")
        if "png" in self._formats and task != "semantic":
            self._lists[f"png {task}"] = _JsonList(self._folder / f"{task}.json", '{"annotations": [', "]}")
        self._prepared.add(task)

    def write(self, item: Segmented, picture: Picture | None = None) -> None:
        frame, result, task = item.frame, item.result, item.task
        if self._formats and task not in self._prepared:
            self._prepare(task)
        if "json" in self._formats:
            for entry in coco_results(result, self._classes):
                line = {"image_id": frame.image_id, "file_name": frame.name, **entry}
                self._lists[f"json {task}"].append(line)
        if "png" in self._formats:
            name = f"{frame.name}.png"
            if isinstance(result, Semantic):
                write_image(self._folder / task / name, _label_map(result, self._classes))
            else:
                ids, segments = _id_map(result, self._classes)
                write_image(self._folder / task / name, _encode_ids(ids))
                line = {"image_id": frame.image_id, "file_name": name, "segments_info": segments}
                self._lists[f"png {task}"].append(line)
        if "npz" in self._formats:
            with replacing(self._folder / "npz" / f"{frame.name}.npz") as temporary:
                np.savez_compressed(temporary, **arrays(result))  # type: ignore[arg-type]
        self.written += 1

    def close(self) -> None:
        """Finish the JSON files; where one cannot be, the others still are."""
        with ExitStack() as stack:
            while self._lists:
                stack.callback(self._lists.popitem()[1].close)


def coco_results(result: Result, classes: tuple[ClassInfo, ...]) -> list[dict[str, Any]]:
    """One dictionary per segment, instance or class: category_id, score, bbox, segmentation.

    Raises:
        MissingDependency: pycocotools is not installed.
    """
    rle = _pycocotools()

    def entry(class_id: int, score: float, mask: NDArray[np.uint8]) -> dict[str, Any]:
        segmentation = rle.encode(mask)
        return {
            "category_id": category_id(classes, class_id),
            "score": score,
            "bbox": rle.toBbox(segmentation).tolist(),
            "segmentation": {"size": segmentation["size"], "counts": segmentation["counts"].decode("ascii")},
        }

    # pycocotools wants masks in Fortran order: turn the map once, not every mask.
    if isinstance(result, Panoptic):
        map_ = np.asfortranarray(result.map)
        return [entry(s.class_id, s.score, (map_ == s.id).view(np.uint8)) for s in result.segments]
    if isinstance(result, Semantic):
        map_, score = np.asfortranarray(result.map), np.asfortranarray(result.score)
        masks = {int(class_id): map_ == class_id for class_id in np.unique(map_)}
        return [entry(i, float(score[mask].mean(dtype=np.float64)), mask.view(np.uint8)) for i, mask in masks.items()]
    entries = []
    for box, crop, class_id, score_ in zip(result.boxes, result.crops, result.classes, result.scores, strict=True):
        mask = np.zeros(result.size, np.uint8, order="F")
        mask[box[1] : box[3], box[0] : box[2]] = crop
        entries.append(entry(int(class_id), float(score_), mask))
    return entries


def arrays(result: Result) -> dict[str, NDArray[Any]]:
    """The fields of a result by name, for ``.npz``.

    - panoptic: map int32 (H, W); for its S segments id, class_id, is_thing, area, score, each (S,).
    - instance: size (2,); class_id, score, each (N,), box (N, 4); crop_0, crop_1, ...: the mask in each box, bool,
      (0, 0) where it is empty, so that numbers are those of the other arrays.
    - semantic: map int32 (H, W), score float32 (H, W).
    """
    if isinstance(result, Instances):
        return {
            "size": np.array(result.size, np.int64),
            "class_id": result.classes,
            "score": result.scores,
            "box": result.boxes,
            **{f"crop_{index}": crop for index, crop in enumerate(result.crops)},
        }
    if isinstance(result, Semantic):
        return {"map": result.map, "score": result.score}
    segments = result.segments
    return {
        "map": result.map,
        "id": np.array([s.id for s in segments], np.int32),
        "class_id": np.array([s.class_id for s in segments], np.int64),
        "is_thing": np.array([s.is_thing for s in segments], np.bool_),
        "area": np.array([s.area for s in segments], np.int64),
        "score": np.array([s.score for s in segments], np.float32),
    }


def _id_map(
    result: Panoptic | Instances, classes: tuple[ClassInfo, ...]
) -> tuple[NDArray[np.int32], list[dict[str, Any]]]:
    if isinstance(result, Panoptic):
        ids, found = result.map, [(s.id, s.class_id, s.is_thing, s.area, s.score) for s in result.segments]
    else:
        ids = result.id_map(len(result.scores))
        areas = np.bincount(ids.ravel(), minlength=len(result.scores) + 1)[1:]
        found = [
            (index + 1, int(class_id), classes[class_id].is_thing, int(area), float(score))
            for index, (class_id, area, score) in enumerate(zip(result.classes, areas, result.scores, strict=True))
            if area
        ]
    return ids, [
        {"id": id_, "category_id": category_id(classes, class_id), "isthing": int(thing), "area": area, "score": score}
        for id_, class_id, thing, area, score in found
    ]


def _encode_ids(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """(H, W, 3) BGR with R + 256 G + 65536 B = id: the bytes of a little-endian word are R, G, B, 0."""
    words = np.ascontiguousarray(ids, "<i4").view(np.uint8).reshape(*ids.shape, 4)
    return cv2.cvtColor(words, cv2.COLOR_RGBA2BGR).astype(np.uint8, copy=False)


def _label_map(result: Semantic, classes: tuple[ClassInfo, ...]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    table = np.array([category_id(classes, index) for index in range(len(classes))])
    if table.max() < 256:
        return table.astype(np.uint8)[result.map]
    return table.astype(np.uint16)[result.map]


def category_id(classes: tuple[ClassInfo, ...], class_id: int) -> int:
    """The class's number in its data set if the model knows it, otherwise its index."""
    number = classes[class_id].dataset_id
    return class_id if number is None else number


def check_coco(purpose: str) -> None:
    """
    Raises:
        MissingDependency: pycocotools is not installed, which ``purpose`` needs.
    """
    _pycocotools(purpose)


def _pycocotools(purpose: str = "run-length encoding") -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        raise MissingDependency("pycocotools", "coco", purpose) from None
    return mask


class _JsonList:
    """A JSON list written entry by entry, so that a long video does not fill the memory."""

    def __init__(self, path: Path, start: str, end: str) -> None:
        check_output(path)
        self._path, self._temporary, self._end = path, temporary_name(path), end
        self._file = self._temporary.open("w", encoding="utf-8")
        self._separator = start + "\n"

    def append(self, entry: dict[str, Any]) -> None:
        with self._named():
            self._file.write(self._separator + json.dumps(entry))
        self._separator = ",\n"

    def close(self) -> None:
        try:
            with self._named(), self._file:
                self._file.write(("\n" if self._separator == ",\n" else self._separator) + self._end + "\n")
            self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """A failed write does not say of which file."""
        try:
            yield
        except OSError as error:
            error.filename = str(self._path)
            raise
