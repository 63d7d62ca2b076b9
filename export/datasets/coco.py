"""COCO's two annotation formats, which many data sets share: panoptic (PNG maps and JSON) and instances (JSON)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.types import Panoptic, Segment
from proscale_deploy.export.datasets.dataset import Category, Dataset, Picture, Truth
from proscale_deploy.export.datasets.files import pair_images, read_id_map, read_json
from proscale_deploy.export.mask_ap import TrueInstance

__all__ = ["CocoInstances", "CocoPanoptic"]


class CocoPanoptic(Dataset):
    """``X.json`` and its maps in the folder ``X``, which lies beside it or, as in COCO's own layout, one level up.

    Instances are the thing segments of the maps. COCO publishes its instances apart, with masks that overlap: AP
    against those is :class:`CocoInstances`'s.
    """

    def __init__(self, images: Path, annotations: Path) -> None:
        data = read_json(annotations, ("images", "annotations", "categories"))
        self._maps = _maps_folder(annotations)
        try:
            categories = [Category(c["id"], c["name"], bool(c["isthing"])) for c in data["categories"]]
            self._things = {category.id: category.is_thing for category in categories}
            self._entries: dict[str, dict[str, Any]] = {str(entry["image_id"]): entry for entry in data["annotations"]}
            files = {str(image["id"]): str(image["file_name"]) for image in data["images"]}
            # Cityscapes' own script writes a file_name that does not exist; its image_id does.
            wanted = {name: (files[name], f"{name}.png") for name in self._entries}
            maps = [self._maps / entry["file_name"] for entry in self._entries.values()]
        except (KeyError, TypeError) as error:
            raise InputError(f"{annotations}: not in COCO's panoptic format ({error!r})") from error
        if missing := [path for path in maps if not path.is_file()]:
            raise InputError(
                f"{annotations}: {len(missing)} of {len(maps)} maps are missing, the first is {missing[0]}"
            )
        super().__init__(
            categories, pair_images(images, wanted), ("panoptic", "instance", "semantic"), [annotations, *maps]
        )

    def truth(self, picture: Picture, class_of: Mapping[int, int]) -> Truth:
        """See :meth:`Dataset.truth`."""
        entry = self._entries[picture.name]
        path = self._maps / entry["file_name"]
        ids = read_id_map(path)
        segments, crowds, void = [], set(), []
        try:
            for info in entry["segments_info"]:
                identity, category = int(info["id"]), info["category_id"]
                if category not in class_of:
                    void.append(identity)
                    continue
                thing = self._things[category]
                segments.append(Segment(identity, class_of[category], thing, int(info["area"]), 1.0))
                if info.get("iscrowd"):
                    crowds.add(identity)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: its entry in the JSON is damaged ({error!r})") from error
        unknown = np.setdiff1d(ids, [0, *void, *(segment.id for segment in segments)])
        if unknown.size:
            raise InputError(f"{path}: holds the id {unknown[0]}, which is not in the JSON")
        if void:
            ids[np.isin(ids, void)] = 0
        return Truth(Panoptic(ids, tuple(segments)), frozenset(crowds))


class CocoInstances(Dataset):
    """A JSON of instances: polygons or run lengths, for every image in its list, annotated or not."""

    def __init__(self, images: Path, annotations: Path) -> None:
        data = read_json(annotations, ("images", "annotations", "categories"))
        try:
            from pycocotools import mask
        except ImportError as error:
            raise MissingDependency("pycocotools", "coco", "reading COCO's instances") from error
        self._rle: Any = mask
        try:
            categories = [Category(c["id"], c["name"], True) for c in data["categories"]]
            self._images = {str(image["id"]): image for image in data["images"]}
            self._entries: dict[str, list[dict[str, Any]]] = {name: [] for name in self._images}
            for entry in data["annotations"]:
                self._entries[str(entry["image_id"])].append(entry)
            wanted = {name: (str(image["file_name"]),) for name, image in self._images.items()}
        except (KeyError, TypeError) as error:
            raise InputError(f"{annotations}: not in COCO's instance format ({error!r})") from error
        super().__init__(categories, pair_images(images, wanted), ("instance",), [annotations])

    def truth(self, picture: Picture, class_of: Mapping[int, int]) -> Truth:
        """See :meth:`Dataset.truth`."""
        image = self._images[picture.name]
        instances = []
        try:
            for entry in self._entries[picture.name]:
                rle = self._encoded(entry["segmentation"], int(image["height"]), int(image["width"]))
                class_id, crowd = class_of[entry["category_id"]], bool(entry.get("iscrowd", 0))
                instances.append(TrueInstance(class_id, rle, float(entry["area"]), crowd))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{picture.image}: an annotation of it in the JSON is damaged ({error!r})") from error
        return Truth(instances=tuple(instances))

    def _encoded(self, segmentation: Any, height: int, width: int) -> dict[str, Any]:
        """Compressed run lengths of polygons, of plain run lengths, or of what is compressed already.

        pycocotools checks nothing: on run lengths of another size it reads beyond its memory, or never ends.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: they are none.
        """
        if isinstance(segmentation, list):
            polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
            if not polygons:
                raise ValueError("a segmentation without a polygon of three points")
            rle = self._rle.merge(self._rle.frPyObjects(polygons, height, width))
        else:
            counts = segmentation["counts"]
            runs = list(map(int, counts)) if isinstance(counts, list) else _runs(counts)
            if min(runs, default=0) < 0 or sum(runs) != height * width:
                raise ValueError(f"run lengths of {sum(runs)} pixels for {height}x{width}")
            rle = self._rle.frPyObjects({"size": [height, width], "counts": runs}, height, width)
        return {"size": [height, width], "counts": rle["counts"].decode("ascii")}


def _runs(compressed: str) -> list[int]:
    """COCO's run lengths from their compressed form: 5 bits a character, the lowest first, with a bit that says whether
    more follow; from the fourth number on the difference to the last but one (``rleFrString`` of maskApi.c).
    """
    runs: list[int] = []
    value = bits = 0
    for character in compressed.encode("ascii"):
        group = character - 48
        value |= (group & 31) << bits
        bits += 5
        if not group & 32:
            signed = value - (1 << bits) if group & 16 else value
            runs.append(signed + runs[-2] if len(runs) > 2 else signed)
            value = bits = 0
    return runs


def _maps_folder(annotations: Path) -> Path:
    places = (annotations.with_suffix(""), annotations.parent.parent / annotations.stem)
    for place in places:
        if place.is_dir():
            return place
    raise InputError(
        f"{annotations}: its PNG maps are not there; expected them in {places[0]} or {places[1]} (COCO has them in "
        f"{annotations.stem}.zip)"
    )
