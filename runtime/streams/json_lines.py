"""Results as JSON lines: for a program that reads them from a pipe as they come."""

import json
from typing import TextIO

from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.save import category_id, check_coco, coco_results
from proscale_deploy.runtime.streams.stats import Segmented

__all__ = ["JsonLines"]


class JsonLines(Output):
    """One line per frame: ``{"frame": 41, "name": "video0_000041", "time": 1.64, "task": "panoptic", "height": 720,
    "width": 1280, "results": [...]}``, with time in seconds since the start of the source, and results as ``--save
    json`` has them (category_id, score, bbox, segmentation) with the ``class`` by name.

    Raises:
        MissingDependency: pycocotools is not installed.
    """

    name = "standard output"

    def __init__(self, file: TextIO) -> None:
        check_coco("--output -")
        self._file = file

    def write(self, item: Segmented, picture: Picture) -> None:
        height, width = item.frame.image.shape[:2]
        classes = picture.classes
        names = {category_id(classes, index): info.name for index, info in enumerate(classes)}
        results = coco_results(item.result, classes)
        line = {
            "frame": item.frame.index,
            "name": item.frame.name,
            "time": round(item.frame.timestamp, 4),
            "task": item.task,
            "height": height,
            "width": width,
            "results": [{"class": names[entry["category_id"]], **entry} for entry in results],
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
