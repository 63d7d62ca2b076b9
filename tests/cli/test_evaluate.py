"""``evaluate`` from end to end, on a network that segments by colour."""

import json
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy import cli
from proscale_deploy.cli.evaluate import _DATASETS
from proscale_deploy.core.types import RawOutput
from proscale_deploy.export.datasets import DatasetKind
from proscale_deploy.runtime import write_image
from proscale_deploy.runtime.session import OnnxRuntimeSession
from support.annotations import write_map, write_panoptic
from support.color_model import picture, write_color_model
from support.results import listing

CATEGORIES = [
    {"id": 7, "name": "road", "isthing": 0},
    {"id": 11, "name": "sky", "isthing": 0},
    {"id": 300, "name": "car", "isthing": 1},
]
CARS = (16, 48, 80)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the model ``m.onnx`` and the data set ``data``: three pictures, exactly annotated."""
    monkeypatch.chdir(tmp_path)
    write_color_model(tmp_path / "m.onnx")
    (tmp_path / "data/images").mkdir(parents=True)
    truth = {}
    for car in CARS:
        image = picture(car=car)
        write_image(tmp_path / f"data/images/{car}.png", image)
        ids = np.where(image[:, :, 0] > 100, 2, np.where(image[:, :, 2] > 100, 3, 1))
        truth[str(car)] = ids, [(1, 7, 0), (2, 11, 0), (3, 300, 0)]
    write_panoptic(tmp_path / "data/panoptic.json", tmp_path / "data/panoptic", truth, CATEGORIES)
    return tmp_path


def evaluate(*arguments: str, dataset: str = "folder", annotations: str = "data") -> object:
    given = ["evaluate", "m.onnx", "--dataset", dataset, "--images", "data/images", "--annotations", annotations]
    with pytest.raises(SystemExit) as caught:
        cli.main([*given, *arguments])
    return caught.value.code


def test_names_of_data_sets_are_those_of_the_library() -> None:
    assert get_args(DatasetKind) == _DATASETS


def test_all_metrics(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate() == 0
    found = json.loads((folder / "evaluation.json").read_text())
    # The network sees a quarter of 64x96 pixels: outlines are off by a pixel of 120x180 or two.
    assert 88 < found["panoptic"]["all"]["pq"] < 100
    assert found["panoptic"]["all"]["rq"] == 100
    assert 88 < found["semantic"]["miou"] < 100
    assert found["instance"]["AP50"] == 100
    assert found["classes"]["car"]["tp"] == 3
    assert found["pictures"] == 3
    assert found["latency"].keys() == {"preprocess", "inference", "panoptic", "instance", "semantic"}
    assert len(found["model"]["sha256"]) == 64
    assert found["thresholds"]["overlap"] == 0.8
    assert listing(folder)[-2:] == ["evaluation.json", "m.onnx"]
    out = capsys.readouterr().out
    assert "3 pictures, 3 classes; measuring panoptic, instance, semantic" in out
    for part in ("PQ      SQ      RQ", f"{found['panoptic']['stuff']['pq']:8.2f}", "AP50", "mIoU", "p90", "inference"):
        assert part in out


def test_stopped_and_given_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate("--output", "whole.json") == 0
    run, calls = OnnxRuntimeSession.run, []

    def stopping(self: OnnxRuntimeSession, images: NDArray[np.float32]) -> list[RawOutput]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(self, images)

    monkeypatch.setattr(OnnxRuntimeSession, "run", stopping)
    assert evaluate("--output", "parts.json") == 130
    assert "2 of 3 pictures are kept in parts.json.partial; the same command" in capsys.readouterr().err
    assert not (folder / "parts.json").exists()
    assert evaluate("--output", "parts.json") == 0
    assert "parts.json.partial holds 2 of 3 pictures: going on from there" in capsys.readouterr().out
    assert len(calls) == 4
    whole, parts = (json.loads((folder / name).read_text()) for name in ("whole.json", "parts.json"))
    for part in ("panoptic", "instance", "semantic", "classes"):
        assert parts[part] == whole[part]


def test_another_model_starts_anew(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "evaluation.json.partial").write_text('{"model":"other"}\n')
    assert evaluate() == 0
    out = capsys.readouterr().out
    assert "evaluation.json.partial is of another run (other data set and engine and model): starting anew" in out


def test_label_maps_judge_the_semantic_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for car in CARS:
        image = picture(car=car)
        labels = np.where(image[:, :, 0] > 100, 1, np.where(image[:, :, 2] > 100, 2, 255))
        write_map(folder / f"labels/semantic/{car}.png", labels)
    table = [{"name": c["name"], "thing": bool(c["isthing"])} for c in CATEGORIES]
    (folder / "labels/classes.json").write_text(json.dumps(table))
    assert evaluate(annotations="labels") == 0
    found = json.loads((folder / "evaluation.json").read_text())
    assert "panoptic" not in found
    assert "measuring semantic\n" in capsys.readouterr().out
    assert found["classes"]["road"]["iou"] is None  # not in the truth
    assert found["classes"]["sky"]["iou"] > 95


def test_another_data_set_than_the_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "data/panoptic.json"
    data = json.loads(path.read_text())
    data["categories"][1]["name"] = "ceiling"
    path.write_text(json.dumps(data))
    assert evaluate() == 1
    error = capsys.readouterr().err
    assert "only the model has sky (stuff); only the data set has ceiling (stuff)" in error
    assert error.count("\n") == 1


def test_what_is_missing_is_found_before_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert evaluate() == 1
    captured = capsys.readouterr()
    assert "needs pycocotools, which is not installed: pip install 'proscale-deploy[coco]'" in captured.err
    assert "evaluating" not in captured.out
    assert not list(folder.glob("evaluation*"))


def test_a_damaged_picture_ends_the_run_and_keeps_what_was_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "data/images/48.png").write_bytes(b"\x89PNG\r\n")
    assert evaluate() == 1
    error = capsys.readouterr().err
    assert "data/images/48.png" in error
    assert error.count("\n") == 1
    assert (folder / "evaluation.json.partial").read_text().count("\n") == 2
    write_image(folder / "data/images/16.png", picture(car=20))  # the data set is another one now
    (folder / "data/images/16.png").write_bytes(b"")
    assert evaluate() == 1
    assert not (folder / "evaluation.json.partial").exists()


def test_options_that_would_have_no_effect(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--config", "config.yaml") == 1
    assert "--config is for weights; in m.onnx stands already what it would say" in capsys.readouterr().err
    assert evaluate("--size", "64x96") == 1
    assert "--size is for weights" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["m.onnx", "data"])
def test_outputs_that_would_do_harm(folder: Path, capsys: pytest.CaptureFixture[str], output: str) -> None:
    assert evaluate("--output", output) == 1
    assert "error: " in capsys.readouterr().err
    assert (folder / "m.onnx").stat().st_size > 100
