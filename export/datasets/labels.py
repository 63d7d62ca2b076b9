"""Data sets whose truth is one number per pixel: ADE20K's and Cityscapes' label maps, and plain folders of them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import Panoptic, Segment
from proscale_deploy.export.datasets.dataset import Category, Dataset, Picture, Truth
from proscale_deploy.export.datasets.files import pair_images, read_label_map

__all__ = ["InstanceIdMaps", "LabelMaps", "label_files"]


class LabelMaps(Dataset):
    """The category of every pixel, in PNGs of one channel."""

    def __init__(
        self,
        images: Path,
        labels: Mapping[str, Path],
        categories: Iterable[Category],
        category_of: Mapping[int, int],
        void: frozenset[int] | None,
    ) -> None:
        """
        Args:
            images: the folder of images.
            labels: name of the picture -> its map.
            categories: of the data set.
            category_of: number in the maps -> category.
            void: numbers that stand for no category; None: all others do.
        """
        self._labels, self._category_of, self._void = labels, category_of, void
        pictures = pair_images(images, {name: (f"{name}.png",) for name in labels})
        super().__init__(categories, pictures, ("semantic",), labels.values())

    def truth(self, picture: Picture, class_of: Mapping[int, int]) -> Truth:
        """See :meth:`Dataset.truth`."""
        path = self._labels[picture.name]
        values = read_label_map(path)
        present, inverse = np.unique(values, return_inverse=True)
        classes = np.full(len(present), -1, np.int32)
        for position, value in enumerate(present.tolist()):
            if value in self._category_of:
                classes[position] = class_of.get(self._category_of[value], -1)
            elif self._void is not None and value not in self._void:
                known = sorted({*self._category_of, *self._void})
                raise InputError(
                    f"{path}: holds the number {value}, which is no class of the data set; expected {known[0]} to "
                    f"{known[-1]}, of which {', '.join(map(str, sorted(self._void)))} is void"
                )
        return Truth(classes=classes[inverse].reshape(values.shape))


class InstanceIdMaps(Dataset):
    """Cityscapes' ``instanceIds``: id x 1000 + number for one thing, the id alone for stuff and for crowds.

    What the categories do not name is void. Thus ``createPanopticImgs.py`` of the Cityscapes scripts makes its panoptic
    maps of them.
    """

    def __init__(self, images: Path, maps: Mapping[str, Path], categories: Iterable[Category]) -> None:
        self._maps = maps
        pictures = pair_images(images, {name: (f"{name}.png",) for name in maps})
        super().__init__(categories, pictures, ("panoptic", "instance", "semantic"), maps.values())
        self._of_id = {category.id: category for category in self.categories}

    def truth(self, picture: Picture, class_of: Mapping[int, int]) -> Truth:
        """See :meth:`Dataset.truth`."""
        ids = read_label_map(self._maps[picture.name])
        segments, crowds, void = [], set(), []
        for identity, area in zip(*(a.tolist() for a in np.unique(ids, return_counts=True)), strict=True):
            alone = identity < 1000
            category = self._of_id.get(identity if alone else identity // 1000)
            if category is None or category.id not in class_of:
                void.append(identity)
                continue
            segments.append(Segment(identity, class_of[category.id], category.is_thing, area, 1.0))
            if alone and category.is_thing:
                crowds.add(identity)
        ids[np.isin(ids, void)] = 0
        return Truth(Panoptic(ids, tuple(segments)), frozenset(crowds))


def label_files(folder: Path, pattern: str, ending: str) -> dict[str, Path]:
    """Name of the picture, which is the file's without ``ending`` -> map, of all files below ``folder``.

    Raises:
        InputError: two files have the same name.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob(pattern)):
        name = path.name.removesuffix(ending)
        if name in files:
            raise InputError(f"--annotations {folder}: {files[name]} and {path} have one name; give the folder of one")
        files[name] = path
    return files
