"""Model files opened and run by ONNX Runtime; exported networks are run in tests/export/test_to_onnx.py."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.manifest import METADATA_KEY, Manifest
from proscale_deploy.core.plugin_library import OVERRIDE
from proscale_deploy.core.types import ClassInfo
from proscale_deploy.runtime.session import open_session
from support.color_model import HEIGHT, MANIFEST, WIDTH, ColorSession, write_attending_model, write_color_model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_model(tmp_path_factory.mktemp("model") / "model.onnx")


def images(batch: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0, 255, (batch, 3, HEIGHT, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_run(path: Path, batch: int) -> None:
    with open_session(path) as session:
        outputs = session.run(images(batch))
    expected = ColorSession().run(images(batch))
    assert len(outputs) == batch
    for output, other in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output.class_logits, other.class_logits)
        np.testing.assert_allclose(output.mask_logits, other.mask_logits, rtol=1e-4, atol=1e-3)
        assert output.mask_logits.flags.c_contiguous


def test_a_strided_batch_is_taken_for_what_it_holds(path: Path) -> None:
    with open_session(path) as session:
        (output,) = session.run(images(3)[::2][1:])
        (expected,) = session.run(images(3)[2:].copy())
    np.testing.assert_array_equal(output.mask_logits, expected.mask_logits)


def test_what_it_says_of_itself(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, str(tmp_path))  # no compiled library
    with open_session(path) as session:
        assert session.manifest == MANIFEST
        assert session.name == "ONNX Runtime CPU"


def test_the_operator_runs_as_grid_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body is swapped in what the engine is given, and the file stays as it is."""
    monkeypatch.setenv(OVERRIDE, str(tmp_path))  # no compiled library
    file = write_attending_model(tmp_path / "model.onnx")
    before = file.read_bytes()

    given = []
    inference_session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda data, *arguments, **options: given.append(data) or inference_session(data, *arguments, **options),
    )
    with open_session(file) as session:
        session.run(images())
    (data,) = given
    (body,) = onnx.load_from_string(data).functions
    assert [node.op_type for node in body.node].count("GridSample") == 2
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, world\n" * 100, "no ONNX file, or a truncated one"),
        (b"\x80\x02}q\x00.", "trained weights; expected an exported model"),
        (bytes(1000), "no ONNX file, or a truncated one"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"model.onnx: {message}.*proscale-deploy export --config"):
        open_session(file)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_files(path: Path, tmp_path: Path, share: float) -> None:
    whole = path.read_bytes()
    file = tmp_path / "model.onnx"
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=r"truncated|not written by proscale-deploy"):
        open_session(file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing.onnx: there is no such file; expected .* proscale-deploy export"):
        open_session(tmp_path / "missing.onnx")
    with pytest.raises(InputError, match="it is a folder"):
        open_session(tmp_path)


def test_models_of_others(tmp_path: Path) -> None:
    file = write_color_model(tmp_path / "model.onnx", manifest=None)
    with pytest.raises(InputError, match=r"model.onnx: not written by proscale-deploy: no 'proscale_deploy' entry"):
        open_session(file)
    model = onnx.load(file)
    helper.set_model_props(model, {METADATA_KEY: "{}"})
    onnx.save(model, file)
    with pytest.raises(InputError, match="damaged manifest"):
        open_session(file)


def test_a_graph_that_cannot_run(path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"ONNX Runtime cannot run it .*NoSuchOperator.*export the model again"):
        open_session(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((3, HEIGHT, WIDTH), np.float32),
        np.zeros((1, 3, WIDTH, HEIGHT), np.float32),
        np.zeros((1, 4, HEIGHT, WIDTH), np.float32),
        np.zeros((0, 3, HEIGHT, WIDTH), np.float32),
        np.zeros((1, 3, HEIGHT, WIDTH), np.float64),
        np.zeros((1, 3, HEIGHT, WIDTH), np.uint8),
    ],
    ids=lambda batch: f"{batch.shape}-{batch.dtype}",
)
def test_wrong_images(path: Path, batch: NDArray) -> None:
    message = rf"expected images \(batch, 3, {HEIGHT}, {WIDTH}\) float32, found .*{batch.dtype}"
    with open_session(path) as session, pytest.raises(InputError, match=message):
        session.run(batch)


@pytest.mark.parametrize(
    "manifest",
    [
        dataclasses.replace(MANIFEST, queries=5),
        dataclasses.replace(MANIFEST, classes=(*MANIFEST.classes, ClassInfo("more", True, (0, 0, 0)))),
    ],
)
def test_outputs_other_than_the_manifest_says(tmp_path: Path, manifest: Manifest) -> None:
    file = write_color_model(tmp_path / "model.onnx", manifest)
    message = r"class_logits \(1, 4, 4\) and mask_logits \(1, 4, 16, 24\), but its manifest says"
    with open_session(file) as session, pytest.raises(InputError, match=message):
        session.run(images())


def test_a_run_that_fails(tmp_path: Path) -> None:
    file = write_color_model(tmp_path / "model.onnx", dataclasses.replace(MANIFEST, input=wider(32)))
    with open_session(file) as session, pytest.raises(InputError, match="ONNX Runtime failed on a batch of 1"):
        session.run(np.zeros((1, 3, HEIGHT, WIDTH + 32), np.float32))


def wider(pixels: int) -> object:
    return dataclasses.replace(MANIFEST.input, width=WIDTH + pixels)


def test_after_closing(path: Path) -> None:
    session = open_session(path)
    session.close()
    session.close()
    with pytest.raises(InputError, match="the session is closed"):
        session.run(images())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages(path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=r"pip install 'proscale-deploy\[cpu\]'"):
        open_session(path)
