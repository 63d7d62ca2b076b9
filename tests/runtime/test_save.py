"""Saved results, read back with pycocotools, Pillow and numpy."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.types import Panoptic
from proscale_deploy.runtime.streams.save import Format, ResultWriter, coco_results
from proscale_deploy.runtime.streams.stats import Segmented
from support.results import CLASSES, SIZE, frame, instances, listing, panoptic, semantic

# pycocotools' decode does not know NumPy 2's signature of __array__.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RESULTS: dict[str, Any] = {"panoptic": panoptic(), "instance": instances(), "semantic": semantic()}


def decode(entry: dict[str, Any]) -> np.ndarray:
    segmentation = entry["segmentation"]
    return rle.decode({"size": segmentation["size"], "counts": segmentation["counts"].encode()}).astype(bool)


def ids_of(path: Path) -> np.ndarray:
    """As panopticapi's rgb2id."""
    rgb = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return rgb[:, :, 0] + 256 * rgb[:, :, 1] + 256**2 * rgb[:, :, 2]


def save(folder: Path, formats: list[Format], task: Any, *results: Any) -> None:
    with ResultWriter(folder, formats, task, CLASSES) as writer:
        for index, result in enumerate(results):
            writer.write(Segmented(frame(index, f"f{index}"), result, task))


def test_json_panoptic(tmp_path: Path) -> None:
    save(tmp_path / "out", ["json"], "panoptic", panoptic(), panoptic())
    assert listing(tmp_path / "out") == ["results.json"]
    entries = json.loads((tmp_path / "out/results.json").read_text())
    assert [entry["image_id"] for entry in entries] == [40] * 3 + [41] * 3
    assert [entry["category_id"] for entry in entries[:3]] == [11, 7, 300]
    assert [entry["file_name"] for entry in entries] == ["f0"] * 3 + ["f1"] * 3
    for entry, id_ in zip(entries[:3], (1, 2, 3), strict=True):
        np.testing.assert_array_equal(decode(entry), panoptic().map == id_)
    assert entries[2]["bbox"] == [30, 20, 30, 20]
    assert entries[2]["score"] == 0.75


def test_json_instances() -> None:
    entries = coco_results(instances(), CLASSES)
    assert len(entries) == 5
    for index, entry in enumerate(entries):
        np.testing.assert_array_equal(decode(entry), instances().mask(index))
        assert entry["score"] == pytest.approx(instances().scores[index])
    assert entries[4]["bbox"] == [60, 50, 10, 10]
    assert entries[3]["bbox"][2:] == [0, 0]


def test_json_semantic() -> None:
    result = semantic()
    entries = coco_results(result, CLASSES)
    assert [entry["category_id"] for entry in entries] == [7, 11, 300]
    for class_id, entry in enumerate(entries):
        np.testing.assert_array_equal(decode(entry), result.map == class_id)
        assert entry["score"] == pytest.approx(result.score[result.map == class_id].mean())


def test_png_panoptic(tmp_path: Path) -> None:
    large = Panoptic(panoptic().map + 70_000 * (panoptic().map == 3), panoptic().segments)
    save(tmp_path, ["png"], "panoptic", panoptic(), large)
    assert listing(tmp_path) == ["panoptic.json", "panoptic/f0.png", "panoptic/f1.png"]
    np.testing.assert_array_equal(ids_of(tmp_path / "panoptic/f0.png"), panoptic().map)
    np.testing.assert_array_equal(ids_of(tmp_path / "panoptic/f1.png"), large.map)
    first = json.loads((tmp_path / "panoptic.json").read_text())["annotations"][0]
    assert (first["image_id"], first["file_name"]) == (40, "f0.png")
    car = {"id": 3, "category_id": 300, "isthing": 1, "area": 600, "score": 0.75}
    assert first["segments_info"][2] == car
    assert [segment["isthing"] for segment in first["segments_info"]] == [0, 0, 1]


def test_png_instances_puts_the_best_on_top(tmp_path: Path) -> None:
    save(tmp_path, ["png"], "instance", instances())
    ids = ids_of(tmp_path / "instance/f0.png")
    expected = np.zeros(SIZE, int)
    for index in (4, 3, 2, 1, 0):
        expected[instances().mask(index)] = index + 1
    np.testing.assert_array_equal(ids, expected)
    segments = json.loads((tmp_path / "instance.json").read_text())["annotations"][0]["segments_info"]
    assert {segment["id"]: segment["area"] for segment in segments} == {1: 400, 2: 500, 5: 100}


def test_png_semantic_holds_category_ids(tmp_path: Path) -> None:
    save(tmp_path, ["png"], "semantic", semantic())
    assert listing(tmp_path) == ["semantic/f0.png"]
    labels = np.asarray(Image.open(tmp_path / "semantic/f0.png"))
    np.testing.assert_array_equal(labels, np.array([7, 11, 300])[semantic().map])


@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_npz_maps(tmp_path: Path, task: str) -> None:
    save(tmp_path, ["npz"], task, RESULTS[task])
    with np.load(tmp_path / "npz/f0.npz") as data:
        np.testing.assert_array_equal(data["map"], RESULTS[task].map)
        if task == "panoptic":
            assert data["class_id"].tolist() == [1, 0, 2]
            assert data["is_thing"].tolist() == [False, False, True]


def test_npz_instances(tmp_path: Path) -> None:
    save(tmp_path, ["npz"], "instance", instances())
    with np.load(tmp_path / "npz/f0.npz") as data:
        np.testing.assert_array_equal(data["class_id"], instances().classes)
        np.testing.assert_array_equal(data["score"], instances().scores)
        assert data["crop_3"].shape == (0, 0)
        for index, (left, top, right, bottom) in enumerate(data["box"]):
            full = np.zeros(data["size"], bool)
            full[top:bottom, left:right] = data[f"crop_{index}"]
            np.testing.assert_array_equal(full, instances().mask(index))


def test_all_formats_side_by_side(tmp_path: Path) -> None:
    save(tmp_path, ["json", "png", "npz"], "panoptic", panoptic())
    assert listing(tmp_path) == ["npz/f0.npz", "panoptic.json", "panoptic/f0.png", "results.json"]


def test_no_result_is_an_empty_list(tmp_path: Path) -> None:
    save(tmp_path, ["json", "png"], "panoptic")
    assert json.loads((tmp_path / "results.json").read_text()) == []
    assert json.loads((tmp_path / "panoptic.json").read_text()) == {"annotations": []}


def test_a_task_that_is_switched_has_files_of_its_own(tmp_path: Path) -> None:
    with ResultWriter(tmp_path, ["json", "png"], "panoptic", CLASSES) as writer:
        for index, (task, result) in enumerate(RESULTS.items()):
            writer.write(Segmented(frame(index, f"f{index}"), result, task))  # type: ignore[arg-type]
    files = ["instance.json", "instance/f1.png", "panoptic.json", "panoptic/f0.png", "results.json"]
    files += ["results_instance.json", "results_semantic.json", "semantic/f2.png"]
    assert listing(tmp_path) == files
    assert {e["file_name"] for e in json.loads((tmp_path / "results.json").read_text())} == {"f0"}
    assert {e["file_name"] for e in json.loads((tmp_path / "results_instance.json").read_text())} == {"f1"}


def test_no_format_no_folder(tmp_path: Path) -> None:
    save(tmp_path / "out", [], "panoptic", panoptic())
    assert not (tmp_path / "out").exists()


def test_interruption_keeps_what_was_added(tmp_path: Path) -> None:
    def interrupted() -> None:
        with ResultWriter(tmp_path, ["json"], "panoptic", CLASSES) as writer:
            writer.write(Segmented(frame(), panoptic(), "panoptic"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(json.loads((tmp_path / "results.json").read_text())) == 3
    assert listing(tmp_path) == ["results.json"]


def test_missing_parent_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mkdir -p"):
        ResultWriter(tmp_path / "no/out", ["json"], "panoptic", CLASSES)


def test_missing_pycocotools_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingDependency, match=r"pip install 'proscale-deploy\[coco\]'"):
        ResultWriter(tmp_path, ["json"], "panoptic", CLASSES)


@pytest.mark.parametrize(("failing", "kept"), [("json", "panoptic.json"), ("png", "results.json")])
def test_a_list_that_cannot_be_finished_takes_no_other_with_it(tmp_path: Path, failing: str, kept: str) -> None:
    writer = ResultWriter(tmp_path, ["json", "png"], "panoptic", CLASSES)
    writer.write(Segmented(frame(), panoptic(), "panoptic"))
    unfinished = writer._lists[f"{failing} panoptic"]
    unfinished._file.close()
    unfinished._file = open("/dev/full", "w")  # noqa: SIM115 (closed by the writer)
    with pytest.raises(OSError, match=r"No space left on device: '.*/\w+.json'"):
        writer.close()
    writer.close()
    assert listing(tmp_path) == sorted(["panoptic/a.png", kept])
