"""Errors against figures computed plainly, agreement worked out by hand, and the drill on graphs with a known fault."""

import base64
import dataclasses
import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from proscale_deploy.core.errors import CheckpointError, InputError
from proscale_deploy.core.types import Instances, Panoptic, Placement, RawOutput, Segment, Semantic
from proscale_deploy.export import verify_drill
from proscale_deploy.export.checkpoint import load_state_dict, load_weights
from proscale_deploy.export.config import load_config
from proscale_deploy.export.model import build_model
from proscale_deploy.export.report import Exhibit, page
from proscale_deploy.export.report_pictures import class_error_map, differing_pixels, mask_error_map
from proscale_deploy.export.stations import TorchSession
from proscale_deploy.export.verify import LIMITS, Comparison, View, check_comparable, finite, limits_for, output_error
from proscale_deploy.export.verify_drill import drill, first_parting
from support.color_model import MANIFEST
from support.results import CLASSES

STREET = Path(__file__).parents[2] / "samples/street"
TASKS = ("panoptic", "instance", "semantic")


def test_output_error_worked_example() -> None:
    a = np.array([[3, 0], [0, -4]], np.float32)  # root mean square 2.5
    b = np.array([[3, 1], [0, -8]], np.float32)
    error = output_error(a, b)
    assert (error.max_absolute, error.mean_absolute) == (4, 5 / 4)
    assert (error.max_relative, error.mean_relative) == (1, (1 / 2.5 + 4 / 4) / 4)
    assert error.l2 == pytest.approx(17**0.5 / 5)
    assert error.cosine == pytest.approx((9 + 32) / 5 / 74**0.5)


@pytest.mark.parametrize("size", [1, 7, 1000, 1001, 5000])
def test_p999_is_exceeded_by_one_of_a_thousand_at_most(size: int) -> None:
    rng = np.random.default_rng(size)
    a, b = rng.normal(size=(2, size)).astype(np.float32)
    ordered = sorted(np.abs(b.astype(np.float64) - a).tolist(), reverse=True)
    assert output_error(a, b).p999_absolute == ordered[size // 1000]


def test_outputs_that_are_zero_nan_or_of_another_shape() -> None:
    zero = np.zeros(3, np.float32)
    assert output_error(zero, zero).l2 == 0
    assert np.isnan(output_error(zero + 1, np.array([1, np.nan, 1], np.float32)).l2)
    with pytest.raises(InputError, match=r"shapes \(3,\) and \(2,\)"):
        output_error(zero, zero[:2])


def view(columns: int, found: bool = True, logits: float = 1.0) -> View:
    """A car over the first of ten columns of 16x16 tiles, road over the others; an unsure second car on the right."""
    ids = np.full((16, 160), 2, np.int32)
    ids[:, : 16 * columns] = 1
    panoptic = Panoptic(ids, (Segment(1, 2, True, 0, 1.0), Segment(2, 0, False, 0, 1.0)))
    boxes = np.array([[0, 0, 16 * columns, 16], [150, 0, 160, 16]], np.int32)
    crops = tuple(np.ones((b - t, r - left), np.bool_) for left, t, r, b in boxes)
    instances = Instances((16, 160), np.array([0.9, 0.3], np.float32), np.array([2, 2]), boxes, crops)
    semantic = Semantic(np.where(ids == 1, 2, 0).astype(np.int32), np.ones(ids.shape, np.float32))
    raw = RawOutput(np.full((2, 4), logits, np.float32), np.full((2, 4, 40), 1, np.float32))
    if not found:
        nothing = Instances((16, 160), *(field[:0] for field in (instances.scores, instances.classes, boxes)), ())
        return View(raw, {"panoptic": Panoptic(ids * 0, ()), "instance": nothing, "semantic": semantic})
    return View(raw, {"panoptic": panoptic, "instance": instances, "semantic": semantic})


def test_agreement_worked_example() -> None:
    comparison = Comparison(CLASSES, TASKS)
    comparison.add("a", view(5), view(4))
    agreement = comparison.result().agreement
    # Car: IoU 4/5; road: 5/6. The unsure car is not in the truth, and as a guess does not lower AP: 0.8 is a match at
    # 7 of 10 thresholds.
    assert agreement["pq"] == agreement["sq"] == pytest.approx(100 * (4 / 5 + 5 / 6) / 2)
    assert agreement["rq"] == 100
    assert agreement["miou"] == pytest.approx(100 * (4 / 5 + 5 / 6) / 2)
    assert agreement["ap"] == pytest.approx(70)


def test_checks_take_the_median_error_and_the_limits_in_turn() -> None:
    comparison = Comparison(CLASSES, TASKS)
    for number, logits in enumerate((1.0, 1.001, 3.0)):
        comparison.add(str(number), view(5), view(5, logits=logits))
    result = comparison.result()
    checks = {check.name: check for check in result.checks(LIMITS["fp16"])}
    assert checks["class_logits"].found == pytest.approx(0.001, rel=1e-4)
    assert checks["class_logits"].passed
    assert all(check.passed for check in checks.values())
    strict = dataclasses.replace(LIMITS["fp16"], class_logits=0.0009, ap=100.5)
    assert [check.name for check in result.checks(strict) if not check.passed] == ["class_logits", "ap"]
    summary = result.summary()["class_logits"]
    assert (summary.max_absolute, summary.l2) == (2, 2)
    assert summary.mean_absolute == pytest.approx((0 + 0.001 + 2) / 3, rel=1e-4)


def test_nan_fails_and_nothing_found_does_not() -> None:
    comparison = Comparison(CLASSES, TASKS)
    comparison.add("a", view(5, found=False), view(5, logits=np.nan))
    checks = {check.name: check for check in comparison.result().checks(LIMITS["int8"])}
    assert not checks["class_logits"].passed
    assert checks["mask_logits"].passed
    assert (checks["ap"].found, checks["ap"].passed) == (None, True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_overflow_is_measured_and_shown(value: float) -> None:
    a, b = view(5), view(5)
    b.raw.mask_logits[1, 2, 3] = value
    usable = finite(b.raw)
    assert np.isfinite(usable.mask_logits).all()
    assert (usable.mask_logits == b.raw.mask_logits).sum() == b.raw.mask_logits.size - 1
    comparison = Comparison(CLASSES, TASKS)
    assert comparison.add("a", a, b).worst == np.inf
    assert [check.name for check in comparison.result().checks(LIMITS["int8"]) if not check.passed] == ["mask_logits"]
    picture, greatest = mask_error_map(a.raw, b.raw, Placement((16, 160), (16, 160), (16, 160)))
    assert greatest == 0
    scale = picture.shape[0] // 4
    cells = picture[::scale, ::scale].sum(axis=2)
    assert np.argwhere(cells == cells.max()).tolist() == [[2, 3]]


def test_no_picture_is_an_error() -> None:
    with pytest.raises(InputError, match="no picture was compared"):
        Comparison(CLASSES, TASKS).result()


def test_stations_of_other_models_are_refused() -> None:
    check_comparable(MANIFEST, dataclasses.replace(MANIFEST, precision="int8", weights_sha256="other"))
    smaller, bgr = (
        dataclasses.replace(MANIFEST, input=dataclasses.replace(MANIFEST.input, **change))
        for change in ({"height": 32}, {"channels": "BGR"})
    )
    for other, message in (
        (dataclasses.replace(MANIFEST, queries=5), "A has 4 queries, B 5;"),
        (smaller, "A was exported for inputs of 64x96, B for 32x96: export both at one size, with --size 64x96"),
        (bgr, "A and B prepare pictures differently: channels is RGB in A, BGR in B"),
        (dataclasses.replace(MANIFEST, classes=CLASSES[1:]), "A has 3 classes, B 2"),
        (dataclasses.replace(MANIFEST, classes=CLASSES[::-1]), r"class 0 is .+ in A, car \(thing\) in B"),
    ):
        with pytest.raises(InputError, match=message):
            check_comparable(MANIFEST, other)


def test_limits_are_those_of_the_less_exact() -> None:
    half, eighth = (dataclasses.replace(MANIFEST, precision=p) for p in ("fp16", "int8"))
    assert limits_for(MANIFEST, half) == ("fp16", LIMITS["fp16"])
    assert limits_for(eighth, half) == ("int8", LIMITS["int8"])


def chain(scales: list[float], half_from: int | None = None) -> onnx.ModelProto:
    """Modules /net/0, /net/1, ...: each multiplies, then takes the root of 1 + x^2; from ``half_from`` on in FP16."""
    nodes, constants, value = [], [], "image"
    for number, scale in enumerate(scales):
        half = half_from is not None and number >= half_from
        kind = np.float16 if half else np.float32
        if number == half_from:
            nodes.append(helper.make_node("Cast", [value], ["half"], "/net/to_fp16", to=TensorProto.FLOAT16))
            value = "half"
        for name, constant in (("scale", scale), ("one", 1)):
            constants.append(numpy_helper.from_array(np.array(constant, kind), f"{name}_{number}"))
        suffix = "_half" if half else ""
        for op, operands, output in (
            ("Mul", [value, f"scale_{number}"], f"scaled_{number}{suffix}"),
            ("Mul", [f"scaled_{number}{suffix}"] * 2, f"squared_{number}{suffix}"),
            ("Add", [f"squared_{number}{suffix}", f"one_{number}"], f"sum_{number}{suffix}"),
            ("Sqrt", [f"sum_{number}{suffix}"], f"root_{number}{suffix}"),
        ):
            nodes.append(helper.make_node(op, operands, [output], f"/net/{number}/{output.split('_')[0]}"))
        value = f"root_{number}{suffix}"
    kinds = [TensorProto.FLOAT, TensorProto.FLOAT if half_from is None else TensorProto.FLOAT16]
    ends = [
        helper.make_tensor_value_info(n, k, ["batch", 3, 4, 6]) for n, k in zip(("image", value), kinds, strict=True)
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def image() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_drill_finds_the_module_that_was_changed(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(verify_drill, "_CHUNK", chunk)
    seen: list[tuple[int, int]] = []
    modules = drill(chain([1, 2, 3, 4]), chain([1, 2, 3.1, 4]), image(), lambda done, of: seen.append((done, of)))
    assert [module.module for module in modules] == ["/net/0", "/net/1", "/net/2", "/net/3"]
    assert [(module.op_type, module.shape) for module in modules] == [("Sqrt", (1, 3, 4, 6))] * 4
    x = image().astype(np.float64)
    expected = {}
    for factor in (3, 3.1):
        y = x
        for scale in (1, 2, factor):
            y = np.sqrt(1 + (scale * y) ** 2)
        expected[factor] = y
    l2 = np.linalg.norm(expected[3.1] - expected[3]) / np.linalg.norm(expected[3])
    assert [module.l2 for module in modules[:2]] == [0, 0]
    assert modules[2].l2 == pytest.approx(l2, rel=1e-4)
    parting = first_parting(modules, 1e-3)
    assert parting is not None
    assert parting.module == "/net/2"
    assert first_parting(modules, 1.0) is None
    assert seen[-1] == (4, 4)


def test_drill_reads_fp16_tensors_by_the_names_of_their_nodes() -> None:
    modules = drill(chain([1, 2.1, 3]), chain([1, 2.1, 3], half_from=1), image())
    assert [module.module for module in modules] == ["/net/0", "/net/1", "/net/2"]
    assert modules[0].l2 == 0
    assert 1e-5 < modules[1].l2 < 1e-3
    broken = dataclasses.replace(modules[1], l2=float("nan"))
    assert first_parting([modules[0], broken, modules[2]], 0.1) is broken


def test_attention_masks_are_not_drilled_but_what_they_do_is() -> None:
    models = [chain([1, 2]) for _ in range(2)]
    for model, limit in zip(models, (0, 0.5), strict=True):
        for name, value in (("limit", limit), ("hide", -1e4), ("show", 0)):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        model.graph.node.insert(0, helper.make_node("Where", ["low", "hide", "show"], ["mask"], "/mask/where"))
        model.graph.node.insert(0, helper.make_node("Less", ["image", "limit"], ["low"], "/mask/less"))
        model.graph.node[2].input[0] = "mask"
    assert [m.module for m in drill(*models, image()) if m.l2 > 0.1] == ["/net/0", "/net/1"]


def test_drill_sees_every_tensor_that_leaves_a_module() -> None:
    models = [chain([1, 2, 3]) for _ in range(2)]
    for model, factor in zip(models, (1, 2), strict=True):
        # A second way from /net/0 to the outside, which does not pass its last node.
        model.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float32), "factor"))
        model.graph.node.insert(3, helper.make_node("Mul", ["squared_0", "factor"], ["aside"], "/net/0/aside"))
        model.graph.output.append(helper.make_tensor_value_info("aside", TensorProto.FLOAT, ["batch", 3, 4, 6]))
    errors = {module.node: module.l2 for module in drill(*models, image())}
    assert errors == pytest.approx({"/net/0/aside": 1, "/net/0/root": 0, "/net/1/root": 0, "/net/2/root": 0})


def test_drill_of_files_without_common_names() -> None:
    other = chain([1])
    for node in other.graph.node:
        node.name = ""
    with pytest.raises(InputError, match="no node of one name"):
        drill(chain([1]), other, image())


PLACEMENT = Placement((40, 60), (60, 90), (64, 96))


def raw(classes: NDArray[np.float32], masks: NDArray[np.float32]) -> RawOutput:
    return RawOutput(classes.astype(np.float32), masks.astype(np.float32))


def test_heat_maps_show_where_outputs_differ() -> None:
    a = raw(np.zeros((2, 4)), np.zeros((2, 16, 24)))
    classes, masks = np.zeros((2, 4)), np.zeros((2, 16, 24))
    classes[1, 2], masks[0, 3, 5], masks[:, 15, 23] = -3, 2, 9  # the last lies in the padding
    masks_map, mask_error = mask_error_map(a, raw(classes, masks), PLACEMENT)
    class_map, class_error = class_error_map(a, raw(classes, masks))
    assert (mask_error, class_error) == (pytest.approx(2**0.5), 3)
    assert masks_map.shape == (15 * 11, 22 * 11, 3)
    for picture, (row, column), (rows, columns) in ((masks_map, (3, 5), (15, 22)), (class_map, (1, 2), (2, 4))):
        cells = picture.reshape(rows, picture.shape[0] // rows, columns, -1, 3).astype(int).sum(axis=(1, 3, 4))
        assert np.unravel_index(cells.argmax(), cells.shape) == (row, column)
        assert (cells == cells.min()).sum() == rows * columns - 1


@pytest.mark.parametrize("task", TASKS)
def test_differing_pixels(task: str) -> None:
    frame = np.full((16, 160, 3), 90, np.uint8)
    a, b = view(5).results[task], view(4).results[task]  # type: ignore[index]
    picture, share = differing_pixels(frame, a, b)
    assert share == 10
    red = (picture[:, :, 2] > 200).all(axis=0)
    assert np.flatnonzero(red).tolist() == list(range(64, 80))


def test_page_holds_everything_itself() -> None:
    comparison = Comparison(CLASSES, TASKS)
    comparison.add("<b>street</b> & co", view(5), view(4, logits=2))
    result = comparison.result()
    picture = np.full((90, 1440, 3), (10, 20, 200), np.uint8)
    modules = drill(chain([1, 2]), chain([1, 2.5]), image())
    text = page(
        "b against a",
        {"A": "x.onnx"},
        result,
        result.checks(LIMITS["fp32"]),
        [Exhibit("<b>street</b>", {"A & B": picture})],
        modules,
        modules[1],
    )
    assert "<b>street" not in text
    assert "&lt;b&gt;street&lt;/b&gt; &amp; co" in text
    assert not re.search(r"(src|href)=(?!\"data:)|https?:|@import|url\(", text)
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert shown.shape == (45, 720, 3)
    np.testing.assert_allclose(shown.mean(axis=(0, 1)), (10, 20, 200), atol=3)
    assert 'class="verdict failed"' in text
    assert text.count("EXCEEDED") == 4  # all but mask_logits
    assert "They part in <b>/net/1</b>" in text
    assert "<tr class='parting'><td>/net/1</td>" in text
    assert "Module by module" not in page("t", {}, result, (), [])


def test_torch_session_is_the_checkpoint() -> None:
    config, weights = STREET / "street.yaml", STREET / "street_proscale.pth"
    model = build_model(load_config(config).model)
    load_weights(model, load_state_dict(weights))
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 96)).astype(np.float32)
    with torch.inference_mode():
        expected = model.eval()(torch.from_numpy(images))
    with TorchSession(config, weights, STREET / "classes.json", (60, 70)) as session:
        assert (session.manifest.input.height, session.manifest.input.width) == (64, 96)
        assert (session.manifest.precision, session.manifest.classes[0].name) == ("fp32", "car")
        for index, output in enumerate(session.run(images)):
            np.testing.assert_array_equal(output.class_logits, expected[0][index].numpy())
            np.testing.assert_array_equal(output.mask_logits, expected[1][index].numpy())
        with pytest.raises(InputError, match=r"expected images \(batch, 3, 64, 96\)"):
            session.run(images[:, :, :32])
    with pytest.raises(InputError, match="closed"):
        session.run(images)
    with pytest.raises(CheckpointError, match="class names are built in for"):
        TorchSession(config, weights)
