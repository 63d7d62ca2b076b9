"""Data sets whose truth is known, as their publishers lay them out; what ``annotations`` is for each:

- ``coco-panoptic``: ``annotations/panoptic_val2017.json``, its maps in ``panoptic_val2017/`` beside it or one level up.
- ``coco-instance``: ``annotations/instances_val2017.json``.
- ``ade20k``: ``annotations/validation`` (0 = other, 1 to 150), or the same converted for detectron2,
  ``annotations_detectron2/validation`` (0 to 149, 255 = other), or ``ade20k_panoptic_val.json``.
- ``cityscapes``: ``gtFine/val``, of which ``*_instanceIds.png`` is read, else ``*_labelIds.png``, else
  ``*_labelTrainIds.png``; or ``cityscapes_panoptic_val.json``.
- ``folder``: one's own, a folder that holds ``panoptic.json`` and ``panoptic/*.png`` in COCO's panoptic format, or
  ``classes.json`` (as for ``export --classes``) and ``semantic/*.png``, whose numbers are the ``id`` of the class, by
  default its position, and 255 for void. Images and maps belong together by their names without suffix.
"""

from pathlib import Path
from typing import Final, Literal, get_args

from proscale_deploy.core.errors import InputError
from proscale_deploy.export.classes import built_in_classes, read_classes
from proscale_deploy.export.datasets.coco import CocoInstances, CocoPanoptic
from proscale_deploy.export.datasets.dataset import Category, Dataset, Picture, Truth, match_classes
from proscale_deploy.export.datasets.labels import InstanceIdMaps, LabelMaps, label_files

__all__ = ["DATASETS", "Dataset", "DatasetKind", "Picture", "Truth", "match_classes", "open_dataset"]

DatasetKind = Literal["coco-panoptic", "coco-instance", "ade20k", "cityscapes", "folder"]
DATASETS: Final[tuple[DatasetKind, ...]] = get_args(DatasetKind)

_OTHER: Final = 255
"""No class, in maps that count classes from 0."""


def open_dataset(kind: DatasetKind, images: Path, annotations: Path) -> Dataset:
    """Find the pictures of a data set and their annotations; see the module for the layouts.

    Raises:
        InputError: files are missing or are not what was expected.
        MissingDependency: ``coco-instance`` without pycocotools.
    """
    if not annotations.exists():
        raise InputError(f"--annotations {annotations}: there is no such file or folder")
    wants_file = kind.startswith("coco") or (kind != "folder" and annotations.suffix == ".json")
    if wants_file != annotations.is_file():
        expected = "a JSON file" if kind.startswith("coco") else "a folder"
        raise InputError(f"--annotations {annotations}: expected {expected} for --dataset {kind}")
    if kind == "coco-instance":
        dataset: Dataset = CocoInstances(images, annotations)
    elif wants_file:
        dataset = CocoPanoptic(images, annotations)
    else:
        dataset = {"ade20k": _ade20k, "cityscapes": _cityscapes, "folder": _folder}[kind](images, annotations)
    if not dataset.pictures:
        raise InputError(f"--annotations {annotations}: no picture is annotated")
    return dataset


def _ade20k(images: Path, annotations: Path) -> Dataset:
    categories = _categories("ade20k")
    converted = "annotations_detectron2" in annotations.resolve().parts
    category_of = {category.id + (not converted): category.id for category in categories}
    void = frozenset({_OTHER if converted else 0})
    return LabelMaps(images, _some(annotations, "*.png", ".png"), categories, category_of, void)


def _cityscapes(images: Path, annotations: Path) -> Dataset:
    categories = _categories("cityscapes")
    for ending in ("_gtFine_instanceIds.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"):
        files = label_files(annotations, f"*{ending}", ending)
        if files and "instance" in ending:
            return InstanceIdMaps(images, files, categories)
        if files:
            by_position = "Train" in ending
            category_of = {n if by_position else category.id: category.id for n, category in enumerate(categories)}
            return LabelMaps(images, files, categories, category_of, void=None)
    raise InputError(
        f"--annotations {annotations}: found no *_gtFine_instanceIds.png, *_gtFine_labelIds.png or "
        "*_gtFine_labelTrainIds.png in it or below"
    )


def _folder(images: Path, annotations: Path) -> Dataset:
    panoptic, classes = annotations / "panoptic.json", annotations / "classes.json"
    if panoptic.exists():
        return CocoPanoptic(images, panoptic)
    if not classes.exists():
        raise InputError(
            f"--annotations {annotations}: found neither panoptic.json (with panoptic/*.png) nor classes.json (with "
            "semantic/*.png) in it"
        )
    categories = [
        Category(position if info.dataset_id is None else info.dataset_id, info.name, info.is_thing)
        for position, info in enumerate(read_classes(classes))
    ]
    if any(category.id == _OTHER for category in categories):
        raise InputError(f"{classes}: no class can have the id {_OTHER}, which stands for void in the maps")
    files = _some(annotations / "semantic", "*.png", ".png")
    return LabelMaps(images, files, categories, {c.id: c.id for c in categories}, frozenset({_OTHER}))


def _some(folder: Path, pattern: str, ending: str) -> dict[str, Path]:
    if files := label_files(folder, pattern, ending):
        return files
    raise InputError(f"--annotations {folder}: expected {pattern} in it, found none")


def _categories(table: Literal["ade20k", "cityscapes"]) -> list[Category]:
    return [
        Category(position if info.dataset_id is None else info.dataset_id, info.name, info.is_thing)
        for position, info in enumerate(built_in_classes(table))
    ]
