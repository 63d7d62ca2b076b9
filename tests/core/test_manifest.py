"""A manifest survives its text; any other text is an error that names the file."""

import json
from dataclasses import replace
from typing import Any

import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.manifest import Calibration, Conversion, Manifest
from proscale_deploy.core.types import ClassInfo, InputSpec, Thresholds

MANIFEST = Manifest(
    architecture="PRO-SCALE 3-3-3, ResNet-50",
    input=InputSpec(64, 96, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "BGR", 60, 90),
    classes=(ClassInfo("sky, Himmel", False, (1, 2, 3)), ClassInfo("Käfer", True, (4, 5, 6), 90)),
    thresholds=Thresholds(0.7, 0.6, 50, ("instance", "semantic"), False),
    queries=17,
    precision="fp32",
    config_sha256="0a",
    weights_sha256="1b",
    version="0.1.0",
)


def test_comes_back_equal() -> None:
    text = MANIFEST.to_json()
    assert "\n" not in text
    assert Manifest.from_json(text, "model.onnx") == MANIFEST


@pytest.mark.parametrize("calibration", [None, Calibration("pictures/", 32, "2c")])
def test_how_a_file_was_reduced_comes_back_equal(calibration: Calibration | None) -> None:
    blocks = (("backbone stem", "fp16"), ("encoder layer 0", "int8"))
    conversion = Conversion("fp16", blocks, ("/backbone/*", "*/mask_embed/*"), calibration)
    manifest = replace(MANIFEST, precision="int8", conversion=conversion)
    assert Manifest.from_json(manifest.to_json(), "model.onnx") == manifest


def test_files_from_before_there_were_precisions() -> None:
    data = json.loads(MANIFEST.to_json())
    del data["conversion"]
    assert Manifest.from_json(json.dumps(data), "model.onnx") == MANIFEST


def changed(**values: Any) -> str:
    """The manifest's text with parts replaced; of a dictionary, those keys that are given."""
    data = json.loads(MANIFEST.to_json())
    for key, value in values.items():
        data[key] = data[key] | value if isinstance(value, dict) else value
    return json.dumps(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        '"text"',
        '{"schema": 1}',
        "[" * 100_000,
        MANIFEST.to_json()[:-1],
        changed(unknown=1),
        changed(input=None),
        changed(input={"unknown": 1}),
        changed(input={"height": "64"}),
        changed(input={"size_divisibility": 0}),
        changed(input={"channels": "rgb"}),
        changed(classes=None),
        changed(classes=[1]),
        changed(thresholds=[]),
        changed(thresholds={"object_mask": "high"}),
        changed(thresholds={"tasks": ["everything"]}),
    ],
    ids=lambda text: text[:20],
)
def test_damaged(text: str) -> None:
    with pytest.raises(InputError, match=r"^model\.onnx: damaged manifest .*export the model again$"):
        Manifest.from_json(text, "model.onnx")


def test_of_another_schema() -> None:
    with pytest.raises(InputError, match=r"^model\.onnx: manifest schema 2, this version reads 1"):
        Manifest.from_json(changed(schema=2), "model.onnx")
