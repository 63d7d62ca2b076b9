"""Class tables: facts of the data sets, and the user's own files."""

import json
from pathlib import Path
from typing import Any

import pytest

from proscale_deploy.core.errors import CheckpointError, InputError
from proscale_deploy.core.types import ClassInfo
from proscale_deploy.export.classes import classes_for, read_classes


def things(classes: tuple[ClassInfo, ...]) -> int:
    return sum(entry.is_thing for entry in classes)


def known(classes: tuple[ClassInfo, ...], index: int, entry: ClassInfo) -> None:
    assert classes[index] == entry


@pytest.mark.parametrize(
    "dataset",
    [
        "coco_2017_train_panoptic",
        "coco_2017_val_panoptic",
        "coco_2017_val_100_panoptic",
        "coco_2017_val_panoptic_with_sem_seg",
    ],
)
def test_coco_panoptic(dataset: str) -> None:
    classes = classes_for(dataset, None, 133)
    assert things(classes) == 80
    assert all(entry.is_thing for entry in classes[:80])
    known(classes, 0, ClassInfo("person", True, (220, 20, 60), 1))
    # Ids 12, 26, 29, 30, 45, 66, 68, 69, 71 and 83 are not in use.
    known(classes, 11, ClassInfo("stop sign", True, (220, 220, 0), 13))
    known(classes, 79, ClassInfo("toothbrush", True, (191, 162, 208), 90))
    known(classes, 80, ClassInfo("banner", False, (255, 255, 128), 92))
    known(classes, 132, ClassInfo("rug-merged", False, (250, 141, 255), 200))


@pytest.mark.parametrize("dataset", ["coco_2017_train", "coco_2017_val", "coco_2017_test-dev", "coco_2014_minival_100"])
def test_coco_instance(dataset: str) -> None:
    classes = classes_for(dataset, None, 80)
    assert classes == classes_for("coco_2017_train_panoptic", None, 133)[:80]


@pytest.mark.parametrize("dataset", ["ade20k_sem_seg_train", "ade20k_sem_seg_val", "ade20k_panoptic_train"])
def test_ade20k(dataset: str) -> None:
    classes = classes_for(dataset, None, 150)
    assert things(classes) == 100
    known(classes, 0, ClassInfo("wall", False, (120, 120, 120), 0))
    known(classes, 12, ClassInfo("person", True, (150, 5, 61), 12))
    known(classes, 149, ClassInfo("flag", True, (92, 0, 255), 149))


def test_ade20k_instance() -> None:
    classes = classes_for("ade20k_instance_train", None, 100)
    assert [(entry.name, entry.dataset_id) for entry in classes[:3]] == [("bed", 7), ("window", 8), ("cabinet", 10)]
    assert things(classes) == 100


@pytest.mark.parametrize("dataset", ["cityscapes_fine_sem_seg_train", "cityscapes_fine_panoptic_val"])
def test_cityscapes(dataset: str) -> None:
    classes = classes_for(dataset, None, 19)
    assert [entry.name for entry in classes if entry.is_thing] == [
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ]
    # labelId of cityscapesScripts, by trainId
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [entry.dataset_id for entry in classes] == ids
    known(classes, 0, ClassInfo("road", False, (128, 64, 128), 7))
    known(classes, 13, ClassInfo("car", True, (0, 0, 142), 26))


def test_cityscapes_instance() -> None:
    classes = classes_for("cityscapes_fine_instance_seg_train", None, 8)
    assert [entry.dataset_id for entry in classes] == [24, 25, 26, 27, 28, 31, 32, 33]


@pytest.mark.parametrize(
    ("dataset", "count", "shared_colors"),
    # ADE20K paints roads and skyscrapers alike.
    [("coco_2017_train_panoptic", 133, 0), ("ade20k_panoptic_val", 150, 1), ("cityscapes_fine_panoptic_val", 19, 0)],
)
def test_names_ids_and_colors_tell_classes_apart(dataset: str, count: int, shared_colors: int) -> None:
    classes = classes_for(dataset, None, count)
    assert len({entry.name for entry in classes}) == count
    assert len({entry.dataset_id for entry in classes}) == count
    assert len({entry.color for entry in classes}) == count - shared_colors
    assert all(entry.name == entry.name.strip() for entry in classes)


@pytest.mark.parametrize(
    "dataset",
    [
        None,
        "mapillary_vistas_panoptic_train",
        "coco_2017_train_panoptic_separated",
        "coco_2017_train_panoptic_stuffonly",
        "keypoints_coco_2017_train",
        "ade20k_full_sem_seg_train",
        "my_coco_2017_train",
    ],
)
def test_data_sets_that_are_not_built_in(dataset: str | None) -> None:
    with pytest.raises(CheckpointError, match=r"--classes FILE\.json with \[\{") as caught:
        classes_for(dataset, None, 80)
    assert str(dataset) in str(caught.value) or "names none" in str(caught.value)


def write(folder: Path, value: Any) -> Path:
    path = folder / "classes.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_another_number_of_classes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"coco_2017_train has 80 classes, .*NUM_CLASSES is 3; .*--classes"):
        classes_for("coco_2017_train", None, 3)
    path = write(tmp_path, [{"name": "a", "thing": True}])
    with pytest.raises(CheckpointError, match=r"classes\.json has 1 classes, .*NUM_CLASSES is 3"):
        classes_for("coco_2017_train", path, 3)


def test_the_users_file_counts(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [
            {"name": "Straße", "thing": False, "color": [1, 2, 3], "id": 40},
            {"name": "car", "thing": True},
            {"name": "sky", "thing": False},
        ],
    )
    classes = classes_for("coco_2017_train", path, 3)
    assert [(entry.name, entry.is_thing, entry.dataset_id) for entry in classes] == [
        ("Straße", False, 40),
        ("car", True, 1),
        ("sky", False, 2),
    ]
    assert classes[0].color == (1, 2, 3)
    assert classes == classes_for(None, path, 3)


def test_a_file_from_a_windows_editor(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text('[{"name": "Straße", "thing": false}]', encoding="utf-8-sig")
    assert read_classes(path)[0].name == "Straße"


def test_made_up_colors(tmp_path: Path) -> None:
    plain = [{"name": str(index), "thing": True} for index in range(300)]
    first = read_classes(write(tmp_path, plain))
    assert first == read_classes(write(tmp_path, plain))
    assert len({entry.color for entry in first}) == 300
    # A colour that is given is not made up again.
    taken = [*plain[:-1], {"name": "last", "thing": True, "color": list(first[0].color)}]
    again = read_classes(write(tmp_path, taken))
    assert again[-1].color == first[0].color
    assert len({entry.color for entry in again}) == 300


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "not JSON"),
        ("[{'name': 'a'}]", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ({"name": "a", "thing": True}, "expected a JSON list of classes"),
        ([], "expected a JSON list of classes"),
        (["a"], "entry 0 must be an object"),
        ([{"name": "a", "thing": True, "id": 1}, {"name": "b", "thing": True}], "several entries have the id 1"),
        ([{"name": name, "thing": True, "id": 7} for name in "ab"], "several entries have the id 7"),
        ([{"thing": True}], 'entry 0 needs a "name"'),
        ([{"name": " ", "thing": True}], 'entry 0 needs a "name"'),
        ([{"name": "a", "thing": True}, {"name": "b"}], 'entry 1 needs "thing": true or false'),
        ([{"name": "a", "thing": 1}], 'needs "thing": true or false'),
        ([{"name": "a", "thing": True, "isthing": 1}], "unknown keys isthing"),
        ([{"name": "a", "thing": True, "id": "x"}], '"id" that is no integer'),
        ([{"name": "a", "thing": True, "id": True}], '"id" that is no integer'),
        ([{"name": "a", "thing": True, "color": [1, 2]}], '"color" that is not 3 integers'),
        ([{"name": "a", "thing": True, "color": [1, 2, 256]}], '"color" that is not 3 integers'),
        ([{"name": "a", "thing": True, "color": [1, 2, 0.5]}], '"color" that is not 3 integers'),
        ([{"name": "a", "thing": True, "color": None}], '"color" that is not 3 integers'),
        ([{"name": "a", "thing": True, "color": "red"}], '"color" that is not 3 integers'),
    ],
)
def test_files_of_another_form(tmp_path: Path, value: Any, expected: str) -> None:
    path = write(tmp_path, value)
    with pytest.raises(InputError) as caught:
        read_classes(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(InputError, match="cannot be read"):
            read_classes(path)
    binary = tmp_path / "weights.pth"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="not JSON"):
        read_classes(binary)
