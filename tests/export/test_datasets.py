"""Small data sets in the layouts of their publishers: what is read is what was written, and faults are named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo
from proscale_deploy.export.classes import built_in_classes
from proscale_deploy.export.datasets import Dataset, Truth, match_classes, open_dataset
from proscale_deploy.export.datasets.coco import _runs
from proscale_deploy.export.datasets.dataset import Category
from support.annotations import write_image, write_map, write_panoptic

GREY = (9, 9, 9)
CLASSES = (ClassInfo("road", False, GREY), ClassInfo("car", True, GREY), ClassInfo("sky", False, GREY))
CATEGORIES = (
    {"id": 40, "name": "Car", "isthing": 1},
    {"id": 7, "name": "sky ", "isthing": 0},
    {"id": 90, "name": "road", "isthing": 0},
)
CITYSCAPES = built_in_classes("cityscapes")
ROAD, CAR, SKY = (next(i for i, c in enumerate(CITYSCAPES) if c.name == name) for name in ("road", "car", "sky"))


def read(dataset: Dataset, classes: tuple[ClassInfo, ...] = CLASSES, picture: int = 0) -> Truth:
    return dataset.truth(dataset.pictures[picture], match_classes(classes, dataset.categories))


def segments(truth: Truth) -> list[tuple[int, int, bool, int]]:
    assert truth.panoptic is not None
    return sorted((s.id, s.class_id, s.is_thing, s.area) for s in truth.panoptic.segments)


@pytest.mark.parametrize("maps", ["annotations/panoptic_val2017", "panoptic_val2017"])
def test_coco_panoptic(tmp_path: Path, maps: str) -> None:
    ids = np.array([[70000, 70000, 300], [5, 5, 0]])
    write_image(tmp_path / "val2017/000000000139.jpg", (2, 3))
    annotations = write_panoptic(
        tmp_path / "annotations/panoptic_val2017.json",
        tmp_path / maps,
        {"000000000139": (ids, [(70000, 40, 0), (300, 40, 1), (5, 90, 0)])},
        CATEGORIES,
    )
    dataset = open_dataset("coco-panoptic", tmp_path / "val2017", annotations)
    truth = read(dataset)
    assert dataset.pictures[0].image == tmp_path / "val2017/000000000139.jpg"
    assert truth.panoptic is not None
    np.testing.assert_array_equal(truth.panoptic.map, ids)
    assert segments(truth) == [(5, 0, False, 2), (300, 1, True, 1), (70000, 1, True, 2)]
    assert truth.crowds == {300}
    np.testing.assert_array_equal(truth.class_map(), [[1, 1, 1], [0, 0, -1]])


def test_stuff_of_no_class_is_void_when_instances_alone_are_measured(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.jpg", (1, 3))
    annotations = write_panoptic(
        tmp_path / "p.json", tmp_path / "p", {"a": ([[1, 2, 2]], [(1, 40, 0), (2, 7, 0)])}, CATEGORIES
    )
    dataset = open_dataset("coco-panoptic", tmp_path / "images", annotations)
    class_of = match_classes(CLASSES[1:2], dataset.categories, things_only=True)
    truth = dataset.truth(dataset.pictures[0], class_of)
    assert class_of == {40: 0}
    assert segments(truth) == [(1, 0, True, 1)]
    np.testing.assert_array_equal(truth.class_map(), [[0, -1, -1]])


@pytest.mark.parametrize("table", ["coco", "ade20k"])
def test_published_category_lists_match_the_built_in_classes(table: str) -> None:
    classes = built_in_classes(table)  # type: ignore[arg-type]
    shuffled = np.random.default_rng(0).permutation(len(classes))
    categories = [Category(100 + int(i), classes[i].name.upper(), classes[i].is_thing) for i in shuffled]
    assert match_classes(classes, categories) == {100 + i: i for i in range(len(classes))}
    assert len(classes) == {"coco": 133, "ade20k": 150}[table]


def coco_instances(folder: Path) -> Path:
    plain = {"size": [8, 10], "counts": [3, 5, 72]}  # column 0, rows 3 to 7
    packed = coco_mask.encode(np.asfortranarray(np.eye(8, 10, dtype=np.uint8)))
    packed["counts"] = packed["counts"].decode()
    entries = [
        {"segmentation": [[2, 1, 6, 1, 6, 4, 2, 4], [0, 6, 2, 6, 2, 8, 0, 8]], "area": 16.0, "iscrowd": 0},
        {"segmentation": plain, "area": 5, "iscrowd": 1},
        {"segmentation": packed, "area": 7.5, "iscrowd": 0},
    ]
    for number, entry in enumerate(entries):
        entry.update(id=number, image_id=25, category_id=3)
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 8, "width": 10} for i in (25, 26)]
    categories = [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}]
    path = folder / "annotations/instances_val2017.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images, "annotations": entries, "categories": categories}))
    for image in images:
        write_image(folder / "val2017" / str(image["file_name"]), (8, 10))
    return path


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' decode, with numpy 2
def test_coco_instances(tmp_path: Path) -> None:
    dataset = open_dataset("coco-instance", tmp_path / "val2017", coco_instances(tmp_path))
    assert dataset.tasks == {"instance"}
    # A panoptic model: its stuff does not count here.
    classes = (ClassInfo("sky", False, GREY), ClassInfo("person", True, GREY), ClassInfo("car", True, GREY))
    class_of = match_classes(classes, dataset.categories, things_only=True)
    found = dataset.truth(dataset.pictures[0], class_of).instances
    assert found is not None
    polygons, column, diagonal = np.zeros((8, 10)), np.zeros((8, 10)), np.eye(8, 10)
    polygons[1:4, 2:6], polygons[6:8, 0:2], column[3:8, 0] = 1, 1, 1
    for instance, expected in zip(found, (polygons, column, diagonal), strict=True):
        np.testing.assert_array_equal(coco_mask.decode(instance.rle), expected)
        json.dumps(instance.rle)
    assert [(i.class_id, i.area, i.is_crowd) for i in found] == [(2, 16, False), (2, 5, True), (2, 7.5, False)]
    assert dataset.truth(dataset.pictures[1], class_of).instances == ()


@pytest.mark.parametrize(
    "segmentation",
    [
        [],
        [[]],
        [[1, 2, 3, 4]],
        [["a"] * 6],
        "text",
        None,
        {"size": [8, 10], "counts": [3, 5]},  # on which pycocotools never ends
        {"size": [8, 10], "counts": [3, 5, 73]},
        {"size": [8, 10], "counts": [90, -15, 5]},
        {"size": [8, 10], "counts": "no runs"},
        {"size": [8, 10], "counts": 7},
    ],
)
def test_damaged_segmentations_are_named(tmp_path: Path, segmentation: object) -> None:
    path = coco_instances(tmp_path)
    data = json.loads(path.read_text())
    data["annotations"][1]["segmentation"] = segmentation
    path.write_text(json.dumps(data))
    dataset = open_dataset("coco-instance", tmp_path / "val2017", path)
    with pytest.raises(InputError, match=r"000000000025\.jpg: an annotation of it in the JSON is damaged"):
        dataset.truth(dataset.pictures[0], {3: 0, 1: 1})


def test_compressed_run_lengths_are_read_as_pycocotools_writes_them() -> None:
    rng = np.random.default_rng(0)
    for share in (0, 0.001, 0.05, 0.5, 1):
        mask = np.asfortranarray(rng.random((217, 301)) < share).view(np.uint8)
        changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F")])))
        expected = np.diff(np.concatenate([[0], changes, [mask.size]]))
        assert _runs(coco_mask.encode(mask)["counts"].decode()) == expected.tolist()


def test_ade20k_in_both_numberings(tmp_path: Path) -> None:
    classes = built_in_classes("ade20k")
    write_image(tmp_path / "images/validation/ADE_val_00000001.jpg", (1, 4))
    official = write_map(tmp_path / "annotations/validation/ADE_val_00000001.png", [[0, 1, 13, 150]])
    converted = write_map(tmp_path / "annotations_detectron2/validation/ADE_val_00000001.png", [[255, 0, 12, 149]])
    for maps in (official, converted):
        dataset = open_dataset("ade20k", tmp_path / "images/validation", maps.parent)
        np.testing.assert_array_equal(read(dataset, classes).class_map(), [[-1, 0, 12, 149]])
    assert (classes[0].name, classes[12].name) == ("wall", "person")


def test_ade20k_of_the_wrong_numbering_is_an_error(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.jpg", (1, 2))
    write_map(tmp_path / "labels/a.png", [[255, 3]])
    dataset = open_dataset("ade20k", tmp_path / "images", tmp_path / "labels")
    with pytest.raises(InputError, match=r"a\.png: holds the number 255.*expected 0 to 150"):
        read(dataset, built_in_classes("ade20k"))


def test_ade20k_panoptic(tmp_path: Path) -> None:
    classes = built_in_classes("ade20k")
    categories = [{"id": i, "name": f"{c.name} ", "isthing": int(c.is_thing)} for i, c in enumerate(classes)]
    write_image(tmp_path / "images/validation/ADE_val_00000001.jpg", (1, 2))
    annotations = write_panoptic(
        tmp_path / "ade20k_panoptic_val.json",
        tmp_path / "ade20k_panoptic_val",
        {"ADE_val_00000001": ([[9, 4]], [(9, 0, 0), (4, 12, 0)])},
        categories,
    )
    truth = read(open_dataset("ade20k", tmp_path / "images/validation", annotations), classes)
    np.testing.assert_array_equal(truth.class_map(), [[0, 12]])


def cityscapes(folder: Path) -> Path:
    """A road, two cars, a crowd of cars, sky, a licence plate (-1), the car's own bonnet (1)."""
    name = "frankfurt_000000_000294"
    write_image(folder / f"leftImg8bit/val/frankfurt/{name}_leftImg8bit.png", (1, 7))
    labels = folder / f"gtFine/val/frankfurt/{name}_gtFine"
    write_map(Path(f"{labels}_instanceIds.png"), [[7, 26000, 26001, 26, 23, 65535, 1]], np.uint16)
    write_map(Path(f"{labels}_labelIds.png"), [[7, 26, 26, 26, 23, 255, 1]])
    write_map(Path(f"{labels}_labelTrainIds.png"), [[0, 13, 13, 13, 10, 255, 255]])
    return folder / "gtFine/val"


def test_cityscapes_instance_ids(tmp_path: Path) -> None:
    dataset = open_dataset("cityscapes", tmp_path / "leftImg8bit/val", cityscapes(tmp_path))
    truth = read(dataset, CITYSCAPES)
    assert [(i, c) for i, c, _, _ in segments(truth)] == [(7, ROAD), (23, SKY), (26, CAR), (26000, CAR), (26001, CAR)]
    assert truth.crowds == {26}
    np.testing.assert_array_equal(truth.class_map(), [[ROAD, CAR, CAR, CAR, SKY, -1, -1]])


@pytest.mark.parametrize("removed", [("instanceIds",), ("instanceIds", "labelIds")])
def test_cityscapes_label_maps(tmp_path: Path, removed: tuple[str, ...]) -> None:
    annotations = cityscapes(tmp_path)
    for kind in removed:
        (annotations / f"frankfurt/frankfurt_000000_000294_gtFine_{kind}.png").unlink()
    dataset = open_dataset("cityscapes", tmp_path / "leftImg8bit/val", annotations)
    assert dataset.tasks == {"semantic"}
    np.testing.assert_array_equal(read(dataset, CITYSCAPES).class_map(), [[ROAD, CAR, CAR, CAR, SKY, -1, -1]])


@pytest.mark.parametrize("train_ids", [False, True])
def test_cityscapes_panoptic_json_equals_instance_ids(tmp_path: Path, train_ids: bool) -> None:
    maps = cityscapes(tmp_path)
    number = {info.name: n if train_ids else info.dataset_id for n, info in enumerate(CITYSCAPES)}
    categories = [{"id": number[c.name], "name": c.name, "isthing": int(c.is_thing)} for c in CITYSCAPES]
    found = [(i, int(number[name] or 0), crowd) for i, name, crowd in (
        (7, "road", 0), (23, "sky", 0), (26, "car", 1), (26000, "car", 0), (26001, "car", 0)
    )]  # fmt: skip
    annotations = write_panoptic(
        tmp_path / "gtFine/cityscapes_panoptic_val.json",
        tmp_path / "gtFine/cityscapes_panoptic_val",
        {"frankfurt_000000_000294": ([[7, 26000, 26001, 26, 23, 0, 0]], found)},
        categories,
        "{}_gtFine_leftImg8bit.png",  # as Cityscapes' script writes it, though there is no such file
    )
    images = tmp_path / "leftImg8bit/val"
    ours, theirs = (read(open_dataset("cityscapes", images, a), CITYSCAPES) for a in (maps, annotations))
    assert ours.panoptic is not None
    assert theirs.panoptic is not None
    np.testing.assert_array_equal(ours.panoptic.map, theirs.panoptic.map)
    assert (segments(ours), ours.crowds) == (segments(theirs), theirs.crowds)


def own_folder(folder: Path) -> tuple[Path, Path]:
    write_image(folder / "images/b.v2.jpg", (1, 4))
    table = [{"name": "sky", "thing": False, "id": 3}, {"name": "road", "thing": False, "id": 0}]
    (folder / "classes.json").write_text(json.dumps([*table, {"name": "car", "thing": True, "id": 700}]))
    write_map(folder / "semantic/b.v2.png", [[3, 0, 700, 255]], np.uint16)
    return folder / "images", folder


def test_folder_of_label_maps(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(open_dataset("folder", *own_folder(tmp_path))).class_map(), [[2, 0, 1, -1]])


def test_palette_maps_hold_indices(tmp_path: Path) -> None:
    images, annotations = own_folder(tmp_path)
    palette = Image.fromarray(np.array([[3, 0, 255, 0]], np.uint8)).convert("P")
    palette.putpalette([200, 100, 50] * 256)
    palette.save(annotations / "semantic/b.v2.png")
    np.testing.assert_array_equal(read(open_dataset("folder", images, annotations)).class_map(), [[2, 0, -1, 0]])


def test_folder_of_panoptic_maps(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.png", (1, 2))
    write_panoptic(
        tmp_path / "panoptic.json", tmp_path / "panoptic", {"a": ([[1, 2]], [(1, 7, 0), (2, 40, 0)])}, CATEGORIES
    )
    truth = read(open_dataset("folder", tmp_path / "images", tmp_path))  # "a.jpg" in the JSON, a.png on the disk
    np.testing.assert_array_equal(truth.class_map(), [[2, 1]])


def test_classes_that_differ_are_shown_from_both_sides() -> None:
    categories = [Category(0, "road", False), Category(1, "car", False), Category(2, "tree", False)]
    with pytest.raises(InputError) as caught:
        match_classes(CLASSES, categories)
    message = str(caught.value)
    assert "only the model has car (thing), sky (stuff); only the data set has car (stuff), tree (stuff)" in message
    with pytest.raises(InputError, match=r"only the model has .*, \d+ more; only the data set has car \(stuff\)"):
        match_classes(built_in_classes("coco"), categories)
    with pytest.raises(InputError, match="two are called 'road'"):
        match_classes(CLASSES, [*categories, Category(5, "Road ", True)])


def test_missing_images_are_counted(tmp_path: Path) -> None:
    path = coco_instances(tmp_path)
    (tmp_path / "val2017/000000000026.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 2 annotated images .* first is 000000000026\.jpg"):
        open_dataset("coco-instance", tmp_path / "val2017", path)
    with pytest.raises(InputError, match="expected a folder of images, found none"):
        open_dataset("coco-instance", tmp_path / "val2018", path)


def test_images_of_one_name_are_not_chosen_from(tmp_path: Path) -> None:
    images, annotations = own_folder(tmp_path)
    for city in ("x", "y"):
        write_image(images / city / "b.v2.png")
    (images / "b.v2.jpg").unlink()
    with pytest.raises(InputError, match=r"b\.v2 may be .*x/b\.v2\.png or .*y/b\.v2\.png"):
        open_dataset("folder", images, annotations)


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    images, annotations = own_folder(tmp_path)
    before = open_dataset("folder", images, annotations).fingerprint
    assert open_dataset("folder", images, annotations).fingerprint == before
    write_map(annotations / "semantic/b.v2.png", [[3, 3, 3, 3]])
    assert open_dataset("folder", images, annotations).fingerprint != before


@pytest.mark.parametrize(
    ("kind", "annotations", "message"),
    [
        ("coco-panoptic", "nothing.json", "no such file or folder"),
        ("coco-panoptic", "semantic", "expected a JSON file for --dataset coco-panoptic"),
        (
            "cityscapes",
            "classes.json",
            "expected an object with the lists images, annotations, categories; found a list",
        ),
        ("cityscapes", "semantic", "found no .*_gtFine_instanceIds.png"),
        ("folder", "semantic", "neither panoptic.json .* nor classes.json"),
        ("folder", "classes.json", "expected a folder for --dataset folder"),
        ("ade20k", "images", r"expected \*.png in it, found none"),
        ("coco-instance", "broken.json", "broken.json: not JSON"),
        ("coco-instance", "half.json", "half.json: not in COCO's instance format"),
        ("coco-panoptic", "half.json", "its PNG maps are not there; expected them in .*/half or "),
    ],
)
def test_unusable_annotations(tmp_path: Path, kind: str, annotations: str, message: str) -> None:
    images, folder = own_folder(tmp_path)
    (folder / "broken.json").write_text('{"images": [')
    (folder / "half.json").write_text('{"images": [{}], "annotations": [], "categories": []}')
    with pytest.raises(InputError, match=message):
        open_dataset(kind, images, folder / annotations)  # type: ignore[arg-type]


def test_unusable_maps(tmp_path: Path) -> None:
    images, annotations = own_folder(tmp_path)
    path = annotations / "semantic/b.v2.png"
    for content, message in (
        (np.zeros((1, 4, 3), np.uint8), "expected one channel of class numbers, found 3"),
        (np.array([[3, 1, 0, 0]], np.uint8), "holds the number 1, which is no class"),
    ):
        Image.fromarray(content).save(path)
        with pytest.raises(InputError, match=message):
            read(open_dataset("folder", images, annotations))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"b\.v2\.png: "):
        read(open_dataset("folder", images, annotations))


def test_panoptic_map_with_ids_that_the_json_lacks(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.jpg", (1, 2))
    annotations = write_panoptic(tmp_path / "p.json", tmp_path / "p", {"a": ([[1, 2]], [(1, 7, 0)])}, CATEGORIES)
    dataset = open_dataset("coco-panoptic", tmp_path / "images", annotations)
    with pytest.raises(InputError, match=r"a\.png: holds the id 2, which is not in the JSON"):
        read(dataset)
    (tmp_path / "p/a.png").unlink()
    with pytest.raises(InputError, match=r"1 of 1 maps are missing, the first is .*a\.png"):
        open_dataset("coco-panoptic", tmp_path / "images", annotations)
