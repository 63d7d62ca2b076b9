"""``inspect`` says what the file says."""

import json
from pathlib import Path

import pytest

from proscale_deploy import cli
from support.color_model import MANIFEST, write_color_model


def run(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        cli.main(["inspect", *arguments])
    return caught.value.code


def test_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_color_model(tmp_path / "m.onnx")
    assert run(str(path)) == 0
    out = capsys.readouterr().out
    for word in (
        MANIFEST.architecture,
        "3, 64, 96",
        "car*",
        "c" * 64,
        "fp32",
        "1 Conv",
        "panoptic, instance, semantic",
    ):
        assert word in out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_color_model(tmp_path / "m.onnx")
    assert run(str(path), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bytes"] == path.stat().st_size
    assert facts["nodes"]["Conv"] == 1
    assert [info["name"] for info in facts["classes"]] == ["road", "sky", "car"]
    assert facts["input"]["height"] == 64


@pytest.mark.parametrize(
    ("content", "found"), [(None, "there is no such file"), (b"", "the file is empty"), (b"text", "no ONNX file")]
)
def test_not_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, found: str) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    assert run(str(path)) == 1
    assert capsys.readouterr().err.startswith(f"error: {path}: {found}")


def test_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path)) == 1
    assert f"error: {tmp_path}: it is a folder; expected a model file" in capsys.readouterr().err
