"""``verify`` from end to end, on networks that segment by colour, and weights in ``evaluate`` and ``verify``."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from proscale_deploy import cli
from proscale_deploy.export.emulate import emulate_half
from proscale_deploy.export.equality import OUTPUTS, relative_l2
from proscale_deploy.export.precision import Recipe
from proscale_deploy.export.ranges import run_network
from proscale_deploy.runtime import write_image
from proscale_deploy.runtime.preprocess import preprocess
from samples.street.dataset import HELD_OUT_SEEDS, write_dataset
from samples.street.evaluate import held_out_frames, measure
from samples.street.validation import torch_network
from samples.street.world import CLASSES
from support import street
from support.color_model import picture, write_color_model
from support.stations import reduced

STREET = Path(__file__).parents[2] / "samples/street"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with ``a.onnx``, ``b.onnx`` which sees a hundredth more of a car, ``wrong.onnx`` which takes red
    for sky, three pictures, and a clip of 10 frames."""
    monkeypatch.chdir(tmp_path)
    for name, change in (("a", None), ("b", (2, 0, 0.202)), ("wrong", (0, 0, 0.5))):
        path = write_color_model(tmp_path / f"{name}.onnx")
        model = onnx.load(path)
        for node in model.graph.node:
            node.name = f"/{'head' if node.output[0].endswith('logits') else 'body'}/{node.output[0]}"
        if change is not None:
            (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
            values = numpy_helper.to_array(weights).copy()
            values[change[0], change[1]] = change[2]
            weights.CopyFrom(numpy_helper.from_array(values, "weights"))
        onnx.save(model, path)
    (tmp_path / "pictures").mkdir()
    for car in (16, 48, 80):
        write_image(tmp_path / f"pictures/{car}.png", picture(car=car))
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (180, 120))
    for car in range(10):
        writer.write(picture(car=8 * car))
    writer.release()
    return tmp_path


def run(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return caught.value.code


def test_a_model_agrees_with_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "a.onnx", "a.onnx", "--data", "pictures", "--drill") == 0
    found = json.loads((folder / "verification.json").read_text())
    assert found["passed"] is True
    assert [frame["name"] for frame in found["frames"]] == ["16", "48", "80"]
    assert found["agreement"] == {"pq": 100, "sq": 100, "rq": 100, "miou": 100, "ap": 100}
    assert found["outputs"]["mask_logits"]["max_absolute"] == 0
    assert {module["module"] for module in found["modules"]} == {"/body", "/head"}
    assert (folder / "verification.html").read_text().count("<img") == 15  # five of each picture
    out = capsys.readouterr().out
    assert "Colours, no backbone, fp32, on ONNX Runtime CPU" in out
    assert out.count("  kept") == 5
    assert "none of 3 tensors that leave a module is off by more than 0.0001" in out


def test_errors_beyond_the_limits_fail(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (
        "verify",
        "a.onnx",
        "wrong.onnx",
        "--data",
        "clip.avi",
        "--frames",
        "4",
        "--output",
        "r.html",
        "--drill",
    )
    assert run(*arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "wrong.onnx differs from a.onnx by more than fp32 should: mask_logits " in captured.err
    assert "they part in /head" in captured.out
    found = json.loads((folder / "r.json").read_text())
    assert found["passed"] is False
    assert [frame["name"] for frame in found["frames"]] == [f"clip_{n:06d}" for n in (0, 2, 5, 7)]
    checks = {check["name"]: check for check in found["checks"]}
    assert not checks["mask_logits"]["passed"]
    assert not checks["pq"]["passed"]
    assert checks["class_logits"]["passed"]


def test_overflow_is_shown_and_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load("b.onnx")
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == "weights")
    weights.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(weights), np.inf), "weights"))
    onnx.save(model, "b.onnx")
    assert run("verify", "a.onnx", "b.onnx", "--data", "pictures", "--drill") == 1
    captured = capsys.readouterr()
    assert "B's outputs hold NaN or infinite values on 3 of 3 pictures" in captured.err
    assert "they part in /head" in captured.out
    text = (folder / "verification.json").read_text()
    assert "NaN" not in text
    checks = {check["name"]: check for check in json.loads(text)["checks"]}
    assert (checks["mask_logits"]["found"], checks["mask_logits"]["passed"]) == (None, False)
    assert (folder / "verification.html").read_text().count("<img") == 15


def test_pictures_that_cannot_be_read_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "pictures/48.png").write_bytes(b"")
    assert run("verify", "a.onnx", "a.onnx", "--data", "pictures") == 0
    captured = capsys.readouterr()
    assert "pictures/48.png" in captured.err
    assert json.loads((folder / "verification.json").read_text())["pictures"] == "2 of pictures"


@pytest.mark.parametrize("half_io", [False, True])
def test_fp16_is_rounded_as_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], half_io: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(street.fp32_graph(), "a.onnx")
    half = reduced(street.fp32_graph(), Recipe("fp16", half_io=half_io))
    onnx.save(half, "b.onnx")
    write_image(tmp_path / "street.png", street.frame(HELD_OUT_SEEDS[0]))
    assert run("verify", "a.onnx", "b.onnx", "--data", "street.png", "--drill", "--limit", "class_logits=0.02") == 0
    assert "b.onnx, PRO-SCALE 1-1-1" in (out := capsys.readouterr().out)
    assert out.count("FP16 rounded as on a GPU") == 1
    found = json.loads((tmp_path / "verification.json").read_text())
    image, _ = preprocess(street.frame(HELD_OUT_SEEDS[0]), street.manifest().input)
    a, b = (next(run_network(m, OUTPUTS, [image])) for m in (street.fp32_graph(), emulate_half(half)))
    for name, expected, rounded in zip(OUTPUTS, a, b, strict=True):
        assert found["outputs"][name]["l2"] == pytest.approx(relative_l2(rounded, expected), rel=0.05)


def test_limits_can_be_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("verify", "a.onnx", "b.onnx", "--data", "pictures")
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert "mask_logits 0.0" in error
    assert "one of 3 pictures decides much: give more --data" in error
    assert run(*arguments, "--limit", "mask_logits=0.1", "--limit", "pq=90") == 0
    for wrong in ("mask_logits", "mask_logits=much", "speed=3"):
        assert run(*arguments, "--limit", wrong) == 1
        assert f"--limit {wrong}: expected NAME=NUMBER, with a name of class_logits" in capsys.readouterr().err


def test_pictures_on_which_nothing_is_found_prove_little(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(folder / "red.png", np.full((120, 180, 3), 120, np.uint8))
    assert run("verify", "a.onnx", "a.onnx", "--data", "red.png") == 0
    captured = capsys.readouterr()
    assert "A finds nothing on these pictures" in captured.err
    assert "nothing to judge by" in captured.out
    assert json.loads((folder / "verification.json").read_text())["agreement"]["pq"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.onnx", "w.pth", "--data", "pictures"), "w.pth: weights need the YAML they were trained with: --config"),
        (
            ("a.onnx", "w.pth", "--data", "pictures", "--drill"),
            "--drill compares two .onnx files, found a.onnx and w.pth",
        ),
        (
            ("a.onnx", "b.onnx", "--data", "pictures", "--config", "c.yaml"),
            "--config is for weights; in a.onnx and b.onnx",
        ),
        (("c.yaml", "b.onnx", "--data", "pictures"), "c.yaml: a YAML configuration; expected an exported model"),
        (("a.onnx", "renamed.onnx", "--data", "pictures"), "--weights renamed.onnx --size"),
        (("a.onnx", "b.onnx", "--data", "nowhere"), "no such file or folder: nowhere"),
        (("a.onnx", "missing.onnx", "--data", "pictures"), "missing.onnx: there is no such file"),
        (("a.onnx", "b.onnx", "--data", "pictures", "--output", "a.json"), "expected an HTML file"),
        (("a.onnx", "b.onnx", "--data", "pictures", "--output", "x/y.html"), "folder x does not exist"),
    ],
)
def test_usage_that_cannot_be_served(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    (folder / "c.yaml").write_text("MODEL: {}")
    (folder / "renamed.onnx").write_bytes(b"PK\x03\x04 of torch.save")
    assert run("verify", *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_weights_are_run_by_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from proscale_deploy.export.stations import TorchSession

    weights, config, classes = (str(STREET / n) for n in ("street_proscale.pth", "street.yaml", "classes.json"))
    data, seeds, size = tmp_path / "streets", HELD_OUT_SEEDS[:2], (192, 320)
    write_dataset(data, seeds, size)
    model = (weights, "--config", config, "--classes", classes)
    output = tmp_path / "found.json"
    where = ("--dataset", "folder", "--images", str(data / "images"), "--annotations", str(data))
    assert run("evaluate", *model, *where, "--output", str(output)) == 0
    found = json.loads(output.read_text())
    assert found["model"]["engine"] == "PyTorch CPU"
    with TorchSession(Path(config), Path(weights), Path(classes)) as session:
        thresholds, spec, network = session.manifest.thresholds, session.manifest.input, session._model
        expected = measure(torch_network(network, spec), held_out_frames(size, seeds), thresholds)  # type: ignore[arg-type]
    for part in ("panoptic", "semantic", "instance", "classes"):
        assert found[part] == expected[part]
    assert found["classes"].keys() == {info.name for info in CLASSES}

    report = tmp_path / "report.html"
    assert run("verify", weights, *model, "--data", str(data / "images"), "--output", str(report)) == 0
    figures = json.loads(report.with_suffix(".json").read_text())
    assert figures["A"] == figures["B"]
    assert np.isclose(figures["agreement"]["pq"], 100)
    capsys.readouterr()
