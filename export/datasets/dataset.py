"""What a data set is to a measurement: pictures, and the truth about each in the classes of the model."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Panoptic, Task
from proscale_deploy.export.mask_ap import TrueInstance

__all__ = ["Category", "Dataset", "Picture", "Truth", "match_classes"]


@dataclass(frozen=True)
class Category:
    """A class as the data set knows it."""

    id: int
    """In the annotations."""
    name: str
    is_thing: bool


@dataclass(frozen=True)
class Picture:
    """One picture of a data set."""

    name: str
    """Unique in the data set."""
    image: Path


@dataclass(frozen=True)
class Truth:
    """What is known of a picture, in classes of the model; None where the data set does not say."""

    panoptic: Panoptic | None = None
    crowds: frozenset[int] = frozenset()
    """Segments of ``panoptic`` that are many things as one."""
    classes: NDArray[np.int32] | None = None
    """(H, W): the class of every pixel, -1 for void."""
    instances: tuple[TrueInstance, ...] | None = None

    def class_map(self) -> NDArray[np.int32] | None:
        """(H, W) classes, -1 for void: as given, or those of the panoptic segments."""
        if self.classes is not None or self.panoptic is None:
            return self.classes
        segments = sorted(self.panoptic.segments, key=lambda segment: segment.id)
        ids = np.array([0, *(segment.id for segment in segments)])
        classes = np.array([-1, *(segment.class_id for segment in segments)], np.int32)
        return classes.take(np.searchsorted(ids, self.panoptic.map), mode="clip")


class Dataset(ABC):
    """Pictures whose truth is known."""

    def __init__(
        self,
        categories: Iterable[Category],
        pictures: Iterable[Picture],
        tasks: Iterable[Task],
        annotations: Iterable[Path],
    ) -> None:
        self.categories: tuple[Category, ...] = tuple(categories)
        self.pictures: tuple[Picture, ...] = tuple(pictures)
        self.tasks: frozenset[Task] = frozenset(tasks)
        """What there is a truth for."""
        self.fingerprint: str = _fingerprint([*annotations, *(picture.image for picture in self.pictures)])
        """Changes when a file of it does."""

    @abstractmethod
    def truth(self, picture: Picture, class_of: Mapping[int, int]) -> Truth:
        """The truth about a picture; what is of no category in ``class_of`` (id -> class of the model) is void.

        Raises:
            InputError: an annotation cannot be read, or does not fit the list of categories.
        """


def match_classes(
    classes: Sequence[ClassInfo], categories: Sequence[Category], things_only: bool = False
) -> dict[int, int]:
    """Category id -> class of the model: those of one name, upper and lower case being the same.

    Ids are not compared: one data set may number its categories in several ways (Cityscapes: ids and train ids).

    Args:
        classes: of the model, in the order of its logits.
        categories: of the data set.
        things_only: leave stuff out on both sides, where instances alone are measured.

    Raises:
        InputError: one has a class that the other has not, or calls a thing what the other calls stuff; a name occurs
            twice.
    """
    ours = _by_name([(info, index) for index, info in enumerate(classes)], things_only)
    theirs = _by_name([(category, category.id) for category in categories], things_only)
    if ours.keys() != theirs.keys() or not ours:
        kind = "thing classes" if things_only else "classes"
        raise InputError(
            f"the model's {len(ours)} {kind} are not the data set's {len(theirs)}: "
            f"only the model has {_listed(ours.keys() - theirs.keys())}; "
            f"only the data set has {_listed(theirs.keys() - ours.keys())}; give the data set that the model was "
            "trained for, or export the model with its classes: --classes FILE.json"
        )
    return {theirs[key]: index for key, index in ours.items()}


def _by_name(entries: Sequence[tuple[ClassInfo | Category, int]], things_only: bool) -> dict[tuple[str, bool], int]:
    """(name, whether it is a thing) -> number."""
    names = [" ".join(info.name.casefold().split()) for info, _ in entries]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"classes are matched by their names, and two are called {twice[0]!r}; rename one")
    return {
        (name, info.is_thing): number
        for name, (info, number) in zip(names, entries, strict=True)
        if info.is_thing or not things_only
    }


def _listed(keys: Iterable[tuple[str, bool]], most: int = 8) -> str:
    names = [f"{name} ({'thing' if thing else 'stuff'})" for name, thing in sorted(keys)]
    rest = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *rest]) or "none"


def _fingerprint(files: Iterable[Path]) -> str:
    """Of names, sizes and times, not of contents, which would take minutes to read."""
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
