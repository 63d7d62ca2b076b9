"""The host library as ONNX Runtime's operator."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.operator import DOMAIN, OP_TYPE, VERSION
from proscale_deploy.core.plugin_library import HOST, OVERRIDE
from proscale_deploy.runtime.session import open_session
from support.color_model import HEIGHT, WIDTH, write_attending_model, write_color_model
from support.deform_attn_cases import Case, cases

TYPES = {DType.FLOAT: TensorProto.FLOAT, DType.HALF: TensorProto.FLOAT16}
CASES = {f"{dtype.name} {case.name}": case for dtype in TYPES for case in cases(dtype)}


def model(case: Case, **attributes: int | list[int]) -> ModelProto:
    levels = [side for level in case.attributes.levels for side in level]
    given = {"heads": case.attributes.heads, "points": case.attributes.points, "levels": levels} | attributes
    node = helper.make_node(OP_TYPE, ["value", "sampling"], ["output"], "node", domain=DOMAIN, **given)
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TYPES[case.dtype], [None] * 3) for name in names]
        for names in (["value", "sampling"], ["output"])
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(helper.make_graph([node], "g", inputs, outputs), opset_imports=opsets, ir_version=8)


def session(library: Path, model: ModelProto, threads: int = 2) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_as_the_c_function(host_library: Path, name: str) -> None:
    case = CASES[name]
    found = session(host_library, model(case)).run(None, {"value": case.value, "sampling": case.sampling})[0]
    np.testing.assert_array_equal(found, Library(host_library).host(case.attributes, case.value, case.sampling))
    case.check(found)


def test_sessions_side_by_side_and_after_one_another(host_library: Path) -> None:
    case, other = CASES["FLOAT as deployed"], CASES["HALF two"]
    first, second = session(host_library, model(case), 1), session(host_library, model(other), 3)
    expected = first.run(None, {"value": case.value, "sampling": case.sampling})[0]
    second.run(None, {"value": other.value, "sampling": other.sampling})
    del first, second
    found = session(host_library, model(case), 3).run(None, {"value": case.value, "sampling": case.sampling})[0]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"points": 9}, "points: expected 1 to 8, found 9"),
        ({"heads": 0}, "heads: expected 1 to 1024, found 0"),
        ({"levels": [2, -3]}, "width of a level: expected 1 to"),
        ({"levels": [2, 3, 4]}, "levels: expected pairs of height and width"),
        ({"levels": [1] * 18}, "not large enough"),
    ],
)
def test_wrong_attributes(host_library: Path, attributes: dict[str, int | list[int]], message: str) -> None:
    with pytest.raises(Exception, match=message):
        session(host_library, model(CASES["FLOAT two"], **attributes))


def test_wrong_shapes(host_library: Path) -> None:
    case = CASES["FLOAT two"]
    value, sampling = case.value, case.sampling
    opened = session(host_library, model(case))
    for wrong in (
        {"value": value, "sampling": sampling[:1]},
        {"value": value[:, :-1], "sampling": sampling},
        {"value": value[:, :-1], "sampling": sampling[:, :-1]},
        {"value": value[..., :-1], "sampling": sampling},
        {"value": value, "sampling": sampling[..., :-1]},
    ):
        with pytest.raises(Exception, match=r"shapes of value and sampling do not fit|channels"):
            opened.run(None, wrong)
    assert opened.run(None, {"value": value[:0], "sampling": sampling[:0]})[0].shape == (0, *value.shape[1:])


def test_attributes_are_needed(host_library: Path) -> None:
    without = model(CASES["FLOAT two"])
    del without.graph.node[0].attribute[0]
    with pytest.raises(Exception, match="attribute"):
        session(host_library, without)


def masks(path: Path) -> tuple[str, NDArray[np.float32]]:
    images = np.random.default_rng(0).uniform(0, 255, (2, 3, HEIGHT, WIDTH)).astype(np.float32)
    with open_session(path) as session:
        return session.name, np.stack([output.mask_logits for output in session.run(images)])


def test_sessions_of_the_runtime_take_it(host_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_attending_model(tmp_path / "model.onnx")
    monkeypatch.setenv(OVERRIDE, str(tmp_path))  # no compiled library
    name, expected = masks(model)
    monkeypatch.setenv(OVERRIDE, str(host_library.parent))
    compiled, found = masks(model)
    assert (name, compiled) == ("ONNX Runtime CPU", "ONNX Runtime CPU, compiled operator")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    without = write_color_model(tmp_path / "without.onnx")
    assert abs(found - masks(without)[1]).min() > 1e-3  # the operator does reach the masks


def test_sessions_do_without_a_library_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / HOST).write_bytes(b"no library")
    monkeypatch.setenv(OVERRIDE, str(tmp_path))
    assert masks(write_attending_model(tmp_path / "model.onnx"))[0] == "ONNX Runtime CPU"
