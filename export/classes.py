"""The classes of a data set: names, thing flags, colours and ids, in the order of the network's logits.

Built in are COCO (panoptic, instance), ADE20K (semantic, panoptic, instance) and Cityscapes (semantic, panoptic,
instance). For any other data set a JSON file is given, of the same form as those in ``data/``::

    [{"name": "road", "thing": false, "color": [128, 64, 128], "id": 7},
     {"name": "car", "thing": true}]

``color`` (RGB, 0..255) and ``id`` (of the category in the annotations) may be left out: colours are then made up, the
same ones each time, and the id is the position.
"""

import colorsys
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from proscale_deploy.core.errors import CheckpointError, InputError
from proscale_deploy.core.types import ClassInfo

__all__ = ["built_in_classes", "classes_for", "read_classes"]

_DATA: Final = Path(__file__).parent / "data"
Table = Literal["ade20k", "cityscapes", "coco"]

_DATASETS: Final[tuple[tuple[re.Pattern[str], Table, bool], ...]] = (
    # detectron2's names (train, val, val_100, test-dev ...), the table, and whether the logits are its things only
    (re.compile(r"coco_2017_[a-z0-9-]+(_100)?_panoptic(_with_sem_seg)?"), "coco", False),
    (re.compile(r"coco_20(14|17)_[a-z-]+(_100)?"), "coco", True),
    (re.compile(r"ade20k_(sem_seg|panoptic)_(train|val)"), "ade20k", False),
    (re.compile(r"ade20k_instance_(train|val)"), "ade20k", True),
    (re.compile(r"cityscapes_fine_(sem_seg|panoptic)_(train|val|test)"), "cityscapes", False),
    (re.compile(r"cityscapes_fine_instance_seg_(train|val|test)"), "cityscapes", True),
)
_KEYS: Final = {"name", "thing", "color", "id"}
_EXAMPLE: Final = '[{"name": "road", "thing": false}, {"name": "car", "thing": true, "color": [0, 0, 142]}, ...]'


def classes_for(dataset: str | None, file: Path | None, num_classes: int) -> tuple[ClassInfo, ...]:
    """The classes of a model.

    Args:
        dataset: name of its data set in the YAML (``Config.dataset``).
        file: the user's own table, which then counts instead.
        num_classes: as in the YAML; "no object" is none of them.

    Raises:
        InputError: the user's file cannot be read.
        CheckpointError: no table is known for the data set, or the table has another number of classes.
    """
    if file is not None:
        classes, origin = read_classes(file), str(file)
    else:
        classes, origin = _built_in(dataset), f"data set {dataset}"
    if len(classes) != num_classes:
        raise CheckpointError(
            f"{origin} has {len(classes)} classes, MODEL.SEM_SEG_HEAD.NUM_CLASSES is {num_classes}; give the model's "
            f"own list: --classes FILE.json with {num_classes} entries, in the order of the training labels: {_EXAMPLE}"
        )
    return classes


def built_in_classes(table: Table) -> tuple[ClassInfo, ...]:
    """All classes of a data set that is known here."""
    return read_classes(_DATA / f"{table}.json")


def read_classes(file: Path) -> tuple[ClassInfo, ...]:
    """Read a JSON table of classes, in the form that this module's docstring shows.

    Raises:
        InputError: the file cannot be read, or has another form.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"))  # Windows' editors put a mark before the text
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); expected a JSON list: {_EXAMPLE}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}); expected a list: {_EXAMPLE}") from error
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{file}: expected a JSON list of classes: {_EXAMPLE}")
    for position, entry in enumerate(entries):
        fault = _fault(entry)
        if fault:
            raise InputError(f"{file}: entry {position} {fault}, found {json.dumps(entry)}; expected {_EXAMPLE}")
    ids = [entry.get("id", position) for position, entry in enumerate(entries)]
    if repeated := [identity for identity, count in Counter(ids).items() if count > 1]:
        raise InputError(
            f"{file}: several entries have the id {repeated[0]}, expected each to have its own (without an "
            '"id", an entry has its position, counted from 0): give every entry one, or none'
        )
    colors = _colors([entry.get("color") for entry in entries])
    return tuple(
        ClassInfo(entry["name"], entry["thing"], color, identity)
        for entry, color, identity in zip(entries, colors, ids, strict=True)
    )


def _built_in(dataset: str | None) -> tuple[ClassInfo, ...]:
    for name, table, things_only in _DATASETS:
        if dataset is not None and name.fullmatch(dataset):
            return tuple(entry for entry in built_in_classes(table) if entry.is_thing or not things_only)
    found = "DATASETS of the YAML names none" if dataset is None else f"the YAML's {dataset} is not one of them"
    raise CheckpointError(
        f"class names are built in for COCO, ADE20K and Cityscapes, and {found}; give them: --classes FILE.json with "
        f"{_EXAMPLE}"
    )


def _fault(entry: Any) -> str | None:
    """What is wrong with an entry of a table, as the end of a sentence."""
    if not isinstance(entry, dict):
        return "must be an object"
    if unknown := entry.keys() - _KEYS:
        return f"has unknown keys {', '.join(sorted(unknown))}"
    if not isinstance(entry.get("name"), str) or not entry["name"].strip():
        return 'needs a "name"'
    if not isinstance(entry.get("thing"), bool):
        return 'needs "thing": true or false'
    if type(entry.get("id", 0)) is not int:
        return 'has an "id" that is no integer'
    color = entry.get("color", [0, 0, 0])
    if not isinstance(color, list) or len(color) != 3 or any(type(c) is not int or not 0 <= c <= 255 for c in color):
        return 'has a "color" that is not 3 integers from 0 to 255'
    return None


def _colors(given: list[list[int] | None]) -> list[tuple[int, int, int]]:
    """RGB colours, made up where none is given."""
    fresh = _fresh_colors({(color[0], color[1], color[2]) for color in given if color is not None})
    return [next(fresh) if color is None else (color[0], color[1], color[2]) for color in given]


def _fresh_colors(taken: set[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Colours far from one another, the same ones each time.

    Hue, saturation and value follow Roberts' R3 sequence: additive recurrence by the powers of 1/1.2207..., the root of
    x^4 = x + 1 (Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018).
    """
    for turn in itertools.count():
        hue, saturation, value = (turn * step % 1.0 for step in (0.8191725134, 0.6710436067, 0.5497004779))
        rgb = colorsys.hsv_to_rgb(hue, 0.5 + 0.5 * saturation, 0.55 + 0.45 * value)
        color = (round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2]))
        if color not in taken:
            taken.add(color)
            yield color
