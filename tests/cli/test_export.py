"""``export`` from a YAML and a checkpoint to a file that ``inspect`` and ``predict`` take."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import proscale_deploy
from proscale_deploy import cli
from proscale_deploy.export.config import load_config
from proscale_deploy.export.model import build_model
from proscale_deploy.runtime.image import write_image
from support.results import listing

STREET = Path(__file__).parents[2] / "samples" / "street"
CONFIG, CLASSES = str(STREET / "street.yaml"), str(STREET / "classes.json")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of the sample's network, untrained."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save({"model": build_model(load_config(Path(CONFIG)).model).state_dict()}, path)
    return str(path)


def run(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return caught.value.code


def test_swapped(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "--config", weights, "--weights", CONFIG, "--output", str(tmp_path / "m.onnx")) == 1
    error = capsys.readouterr().err
    assert f"{weights} is a file of weights and {CONFIG} a YAML; type --config {CONFIG} --weights {weights}" in error


def test_exported_file_works(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["export", "--config", CONFIG, "--weights", weights, "--classes", CLASSES]
    assert run(*common, "--size", "60x96", "--output", "m.onnx") == 0
    out = capsys.readouterr().out
    assert "size 60x96 rounded up to multiples of 32" in out
    for word in (
        "PRO-SCALE 1-1-1",
        "3 of them ProScaleMSDeformAttn",
        "GMAC",
        "pixel decoder",
        "proscale-deploy predict",
    ):
        assert word in out
    assert listing(tmp_path) == ["m.onnx"]

    assert run("inspect", "m.onnx", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["input"]["height"], facts["input"]["width"]) == (64, 96)
    assert [info["name"] for info in facts["classes"]][:2] == ["car", "bus"]
    assert facts["nodes"]["ProScaleMSDeformAttn"] == 3

    write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8))
    for task in ("panoptic", "instance", "semantic"):
        assert run("predict", "m.onnx", "a.png", "--task", task, "--output", f"{task}.png") == 0


@pytest.mark.parametrize("size", ["10001x10001", "64x8193", "1000000x1000000"])
def test_too_large_a_size(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    arguments = ["--config", CONFIG, "--weights", weights, "--output", str(tmp_path / "m.onnx")]
    assert run("export", *arguments, "--size", size) == 2
    assert f"'{size}' is too large: at most 8192 a side" in capsys.readouterr().err


def test_the_size_is_by_default_that_of_the_yaml(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def remember(*arguments: object, size: tuple[int, int], **options: object) -> None:
        asked["size"] = size
        raise KeyboardInterrupt

    monkeypatch.setattr("proscale_deploy.export.to_onnx.export_onnx", remember)
    output = str(tmp_path / "m.onnx")
    assert run("export", "--config", CONFIG, "--weights", weights, "--classes", CLASSES, "--output", output) == 130
    assert asked["size"] == (192, 320)


@pytest.mark.parametrize("size", ["800", "800,1344", "0x64", "800x1344x3", "axb", "-32x64", "800 x 1344", ""])
def test_wrong_size(weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str) -> None:
    arguments = ["--config", CONFIG, "--weights", weights, "--output", str(tmp_path / "m.onnx")]
    assert run("export", *arguments, "--size", size) == 2
    assert "is not HEIGHTxWIDTH in pixels; for instance 800x1344" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "value", "message"),
    [
        ("--output", "no/m.onnx", "mkdir -p no"),
        ("--config", "none.yaml", "none.yaml"),
        ("--weights", "none.pth", "none.pth"),
        ("--classes", "none.json", "none.json"),
        ("--classes", "two.json", "has 2 classes"),
        ("--output", "m.engine", "type --output m.onnx"),
        ("--output", "m", "type --output m.onnx"),
    ],
)
def test_bad_arguments(
    weights: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two.json").write_text('[{"name": "a", "thing": true}, {"name": "b", "thing": false}]')
    options = {"--config": CONFIG, "--weights": weights, "--classes": CLASSES, "--output": "m.onnx", changed: value}
    assert run("export", *(word for pair in options.items() for word in pair)) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert listing(tmp_path) == ["two.json"]


@pytest.mark.parametrize("option", ["--config", "--weights", "--classes"])
def test_the_output_replaces_no_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trained").write_text("precious")
    options = {"--config": CONFIG, "--weights": "w.pth", "--output": "./trained", option: "trained"}
    assert run("export", *(word for pair in options.items() for word in pair)) == 1
    assert "the output would replace the input trained" in capsys.readouterr().err
    assert (tmp_path / "trained").read_text() == "precious"


def test_without_torch(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(proscale_deploy, "export", proscale_deploy.export)  # what is imported anew takes its place
    for name in [name for name in sys.modules if name.startswith("proscale_deploy.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run("export", "--config", CONFIG, "--weights", weights, "--output", str(tmp_path / "m.onnx")) == 1
    assert "needs torch, which is not installed: pip install 'proscale-deploy[export]'" in capsys.readouterr().err
