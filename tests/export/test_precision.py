"""FP16 and INT8 files of the sample model: types, pairs, sizes, outputs, and that other tools take them."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxsim
import pytest
from onnx import NodeProto, TensorProto, numpy_helper

from proscale_deploy.core.errors import PrecisionError
from proscale_deploy.core.manifest import METADATA_KEY
from proscale_deploy.core.operator import is_operator
from proscale_deploy.export.emulate import emulate_half
from proscale_deploy.export.equality import OUTPUTS, relative_l2
from proscale_deploy.export.islands import FP32_ISLANDS, INT8_EXCLUSIONS, matches
from proscale_deploy.export.precision import Converted, Recipe, convert, levels_of
from proscale_deploy.export.quantize import quantizable
from proscale_deploy.export.ranges import run_network
from proscale_deploy.runtime.session import open_session
from support import street

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
EXCLUDED = "/backbone/res2/*"


@pytest.fixture(scope="module")
def fp32() -> onnx.ModelProto:
    return street.fp32_graph()


@pytest.fixture(scope="module")
def fp16(fp32: onnx.ModelProto) -> Converted:
    return convert(fp32, Recipe("fp16"))


@pytest.fixture(scope="module")
def int8(fp32: onnx.ModelProto) -> Converted:
    return convert(fp32, Recipe("int8", (EXCLUDED,), images=street.images()))


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor -> element type, as ONNX itself infers it, functions included."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def named(model: onnx.ModelProto) -> dict[str, NodeProto]:
    nodes = {node.name: node for node in model.graph.node}
    assert len(nodes) == len(model.graph.node)
    return nodes


def makers(model: onnx.ModelProto) -> dict[str, NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def test_all_arithmetic_is_fp16(fp16: Converted) -> None:
    of = types(fp16.model)
    onnx.checker.check_model(fp16.model, full_check=True)
    for node in fp16.model.graph.node:
        if node.op_type in ("Cast", "Resize"):
            continue
        used = {of[name] for name in (*node.input, *node.output) if of.get(name) in FLOATS}
        assert used <= {TensorProto.FLOAT16}, node.name
    assert (fp16.precision, fp16.conversion.io, fp16.conversion.calibration) == ("fp16", "fp32", None)
    assert {precision for _, precision in fp16.conversion.blocks} == {"fp16"}
    assert fp16.reduction.fp32_nodes == ()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_operator_stays_one_node_and_takes_fp16(
    request: pytest.FixtureRequest, fp32: onnx.ModelProto, precision: str
) -> None:
    model = request.getfixturevalue(precision).model
    of = types(model)
    before, after = ([node for node in m.graph.node if is_operator(node)] for m in (fp32, model))
    assert [node.name for node in after] == [node.name for node in before]
    for node, original in zip(after, before, strict=True):
        assert list(node.attribute) == list(original.attribute)
        assert [of[name] for name in (*node.input, *node.output)] == [TensorProto.FLOAT16] * 3
    assert len(model.functions) == 1


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_names_and_interface_survive(request: pytest.FixtureRequest, fp32: onnx.ModelProto, precision: str) -> None:
    model = request.getfixturevalue(precision).model
    before = {name: node.op_type for name, node in named(fp32).items() if node.op_type != "Constant"}
    after = {name: node.op_type for name, node in named(model).items()}
    assert before.items() <= after.items()
    added = Counter(after[name] for name in after.keys() - before.keys())
    assert set(added) <= {"Cast", "QuantizeLinear", "DequantizeLinear"}
    assert (list(model.graph.input), list(model.graph.output)) == (list(fp32.graph.input), list(fp32.graph.output))


def test_half_inputs_and_outputs(fp32: onnx.ModelProto) -> None:
    converted = convert(fp32, Recipe("fp16", half_io=True))
    values = [*converted.model.graph.input, *converted.model.graph.output]
    assert {value.type.tensor_type.elem_type for value in values} == {TensorProto.FLOAT16}
    assert "Cast" not in {node.op_type for node in converted.model.graph.node}
    assert converted.conversion.io == "fp16"


def test_excluded_nodes_are_fp32_islands(fp32: onnx.ModelProto) -> None:
    converted = convert(fp32, Recipe("fp16", ("/predictor/class_embed/*",)))
    of, maker = types(converted.model), makers(converted.model)
    head = [node for node in converted.model.graph.node if node.name.startswith("/predictor/class_embed/")]
    heavy = [node for node in head if node.op_type in ("MatMul", "Add")]
    assert len(heavy) == 2
    for node in heavy:
        assert {of[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT}
    assert maker[heavy[0].input[0]].op_type == "Cast"
    others = [node for node in converted.model.graph.node if node.op_type == "MatMul" and node is not heavy[0]]
    assert {of[node.output[0]] for node in others} == {TensorProto.FLOAT16}
    assert converted.conversion.excluded == ("/predictor/class_embed/*",)


def test_int8_where_it_gains(fp32: onnx.ModelProto, int8: Converted) -> None:
    onnx.checker.check_model(int8.model, full_check=True)
    nodes, maker, of = named(int8.model), makers(int8.model), types(int8.model)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.model.graph.initializer}
    candidates = {name for name in quantizable(fp32) if not matches(INT8_EXCLUSIONS, name)}
    assert len(candidates) < len(quantizable(fp32))
    count = 0
    for name, node in nodes.items():
        sources = [maker[i].op_type if i in maker else "constant" for i in node.input[:2]]
        if name not in candidates or name.startswith("/backbone/res2/"):
            if node.op_type in ("Conv", "MatMul"):
                assert "DequantizeLinear" not in sources, name
            continue
        count += 1
        assert sources == ["DequantizeLinear"] * 2, name
        assert of[node.input[0]] == of[node.output[0]] == TensorProto.FLOAT16
        activation, weight = maker[node.input[0]], maker[node.input[1]]
        assert maker[activation.input[0]].op_type == "QuantizeLinear"
        assert stored[activation.input[1]].shape == ()
        # Weights lie in the file as INT8, one scale per output channel, and use their range.
        numbers, scales = stored[weight.input[0]], stored[weight.input[1]]
        axis = 0 if node.op_type == "Conv" else 1
        assert numbers.dtype == np.int8
        assert scales.shape == (numbers.shape[axis],)
        assert scales.dtype == np.float16
        peaks = np.abs(numbers.astype(int)).max(axis=tuple(i for i in range(numbers.ndim) if i != axis))
        assert set(peaks[peaks > 0].tolist()) <= {126, 127}
        assert next(a.i for a in weight.attribute if a.name == "axis") == axis
    assert count == int8.reduction.int8_nodes > 100


def test_residual_additions_of_the_backbone_take_one_int8_summand(int8: Converted) -> None:
    maker = makers(int8.model)
    additions = [n for n in int8.model.graph.node if re.fullmatch(r"/backbone/res[345]/res\d\.\d/Add", n.name)]
    assert len(additions) == 13
    for node in additions:
        assert [maker[name].op_type for name in node.input] == ["Conv", "DequantizeLinear"]
    untouched = [n for n in int8.model.graph.node if re.fullmatch(r"/backbone/res2/res2\.\d/Add", n.name)]
    assert all("DequantizeLinear" not in {maker[name].op_type for name in node.input} for node in untouched)


def test_pairs_are_shared_and_named_after_their_source(int8: Converted) -> None:
    quantizers = [node for node in int8.model.graph.node if node.op_type == "QuantizeLinear"]
    assert len({node.input[0] for node in quantizers}) == len(quantizers)
    assert all(node.name.endswith("/quantize") for node in quantizers)


def test_every_rule_is_about_something(fp32: onnx.ModelProto) -> None:
    names = quantizable(fp32)
    for rule in (*FP32_ISLANDS, *INT8_EXCLUSIONS):
        assert any(matches([rule], name) for name in names), rule.pattern
        assert rule.reason
        assert rule.measured


def test_files_shrink(fp32: onnx.ModelProto, fp16: Converted, int8: Converted) -> None:
    full, half, quarter = (model.ByteSize() for model in (fp32, fp16.model, int8.model))
    assert half < 0.53 * full
    assert quarter < 0.36 * full


@pytest.fixture(scope="module")
def expected(fp32: onnx.ModelProto) -> list[list[np.ndarray]]:
    return list(run_network(fp32, OUTPUTS, street.images(1_000_000, 5).arrays))


@pytest.mark.parametrize(("precision", "least", "most"), [("fp16", 1e-4, 2e-2), ("int8", 5e-3, 0.2)])
def test_outputs_are_near_those_of_fp32(
    request: pytest.FixtureRequest, expected: list[list[np.ndarray]], precision: str, least: float, most: float
) -> None:
    """Median over streets that ranges do not come from; equal outputs would mean that nothing was reduced."""
    model = emulate_half(request.getfixturevalue(precision).model)
    found = run_network(model, OUTPUTS, street.images(1_000_000, 5).arrays)
    errors = [[relative_l2(*pair) for pair in zip(a, b, strict=True)] for a, b in zip(found, expected, strict=True)]
    assert (np.median(errors, axis=0) < most).all(), errors
    assert (np.median(errors, axis=0) > least).all(), errors


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_file_runs_as_it_is(
    request: pytest.FixtureRequest, expected: list[list[np.ndarray]], tmp_path: Path, precision: str
) -> None:
    """In the runtime's session, which rounds less than a GPU does."""
    converted = request.getfixturevalue(precision)
    model = onnx.ModelProto()
    model.CopyFrom(converted.model)
    manifest = replace(street.manifest(), precision=converted.precision, conversion=converted.conversion)
    onnx.helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    images = street.images(1_000_000, 5).arrays
    with open_session(tmp_path / "m.onnx") as session:
        outputs = session.run(images[:2])
    for output, (classes, masks) in zip(outputs, expected, strict=False):
        assert relative_l2(output.class_logits, classes[0]) < 0.3
        assert relative_l2(output.mask_logits, masks[0]) < 0.3


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_conversion_is_deterministic(request: pytest.FixtureRequest, fp32: onnx.ModelProto, precision: str) -> None:
    before = fp32.SerializeToString(deterministic=True)
    first = request.getfixturevalue(precision)
    recipe = Recipe("fp16") if precision == "fp16" else Recipe("int8", (EXCLUDED,), images=street.images())
    again = convert(fp32, recipe)
    assert again.model.SerializeToString(deterministic=True) == first.model.SerializeToString(deterministic=True)
    assert fp32.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_onnxsim_leaves_types_and_pairs(request: pytest.FixtureRequest, precision: str) -> None:
    model = request.getfixturevalue(precision).model
    simplified, ok = onnxsim.simplify(model)
    assert ok
    kinds = ("QuantizeLinear", "DequantizeLinear", "ProScaleMSDeformAttn", "Conv")
    before, after = (Counter(node.op_type for node in m.graph.node) for m in (model, simplified))
    assert {kind: after[kind] for kind in kinds} == {kind: before[kind] for kind in kinds}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_rtx_builds_it(request: pytest.FixtureRequest, precision: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs: pip install 'proscale-deploy[rtx]'")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(request.getfixturevalue(precision).model.SerializeToString())
    assert parsed, [parser.get_error(i).desc() for i in range(parser.num_errors)]
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    products = [layer for layer in layers if layer.type in (trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY)]
    assert {layer.get_output(0).dtype for layer in products} == {trt.DataType.HALF}
    assert any(layer.type == trt.LayerType.QUANTIZE for layer in layers) == (precision == "int8")
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *[(batch, 3, *street.SIZE) for batch in (1, 1, 2)])
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config).nbytes > 0


def test_facts(int8: Converted) -> None:
    assert int8.precision == "int8"
    conversion = int8.conversion
    assert conversion.excluded == (EXCLUDED,)
    assert conversion.calibration == street.images().facts
    blocks = dict(conversion.blocks)
    half = {block for block, precision in blocks.items() if precision == "fp16"}
    assert half == {"backbone stem", "backbone res2", "recalibration", "mask head", "class head"}  # nothing is INT8
    assert set(blocks.values()) == {"fp16", "int8"}
    assert [name for name in blocks if name.startswith("backbone")] == ["backbone stem"] + [
        f"backbone res{stage}" for stage in (2, 3, 4, 5)
    ]
    assert [name for name in blocks if "layer" in name] == [f"encoder layer {i}" for i in range(3)] + [
        f"decoder layer {i}" for i in range(6)
    ]


def test_int8_needs_pictures(fp32: onnx.ModelProto) -> None:
    with pytest.raises(PrecisionError, match="--calibration"):
        convert(fp32, Recipe("int8"))


def test_a_pattern_that_fits_nothing(fp32: onnx.ModelProto) -> None:
    with pytest.raises(PrecisionError, match=r"--exclude '/backbone/res9/\*' fits none of the \d+ nodes.*/backbone/"):
        convert(fp32, Recipe("fp16", ("/backbone/res9/*",)))


@pytest.fixture
def wide() -> onnx.ModelProto:
    """A network whose middle is beyond FP16 though its weights are not."""
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    g (float[batch, 3, 4, 4] image) => (float[batch, 3, 4, 4] class_logits, float[batch, 3, 4, 4] mask_logits)
    <float big = {60000.0}, float small = {0.0001}>
    {
        [n0] a = Relu (image)
        [n1] b = Mul (a, big)
        [n2] c = Mul (b, small)
        [n3] class_logits = Tanh (c)
        [n4] mask_logits = Tanh (a)
    }
    """
    return onnx.parser.parse_model(text)


def test_tensors_beyond_fp16_stay_in_fp32(wide: onnx.ModelProto) -> None:
    converted = convert(wide, Recipe("fp16"))
    assert converted.reduction.fp32_nodes == ("n1", "n2")
    of = types(converted.model)
    assert (of["a"], of["b"], of["c"]) == (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT)
    assert converted.reduction.error < 1e-2


def test_the_precision_of_a_mix_is_the_lowest_in_it(fp32: onnx.ModelProto) -> None:
    some = convert(fp32, Recipe("fp16", blocks={"encoder layer 0": "int8"}, images=street.images()))
    assert (some.precision, dict(some.conversion.blocks)["encoder layer 1"]) == ("int8", "fp16")
    assert 0 < some.reduction.int8_nodes < 10
    none = convert(fp32, Recipe("fp16", ("*",)))
    assert none.precision == "fp32"
    assert none.reduction.error < 1e-5


def test_glue_without_a_module_goes_with_what_it_moves() -> None:
    text = """
    <ir_version: 9, opset_import: ["" : 18]>
    g (float[1, 4] image) => (float[1, 2] class_logits)
    <int64[1] start = {0}, int64[1] end = {2}, int64[1] axis = {1}>
    {
        a = Relu (image)
        b = Slice (a, start, end, axis)
        c = Slice (b, start, end, axis)
        class_logits = Relu (c)
    }
    """
    model = onnx.parser.parse_model(text)
    names = ("/backbone/layers.0/Relu", "Slice_1", "Slice_2", "/predictor/Relu")
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    levels = levels_of(model, Recipe("int8", blocks={"backbone stage 0": "fp32", "mask head": "fp16"}))
    assert list(levels.values()) == ["fp32", "fp32", "fp32", "fp16"]
    assert list(levels_of(model, Recipe("int8", ("*",))).values()) == ["fp16"] * 4


def test_an_excluded_addition_takes_no_int8(fp32: onnx.ModelProto) -> None:
    addition = "/backbone/res3/res3.1/Add"
    converted = convert(fp32, Recipe("int8", (addition,), images=street.images(count=1)))
    maker, nodes = makers(converted.model), named(converted.model)
    for name, quantized in ((addition, False), (addition.replace("3.1", "3.2"), True)):
        assert ("DequantizeLinear" in {maker[source].op_type for source in nodes[name].input}) is quantized


def test_constants_beyond_fp16_are_an_error(wide: onnx.ModelProto) -> None:
    wide.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(1e6), "big"))
    wide.graph.node[1].op_type = "Min"  # no tensor is large
    with pytest.raises(PrecisionError, match=r"constant big of n1 holds 1e\+06, FP16 ends at 65504"):
        convert(wide, Recipe("fp16"))
    assert convert(wide, Recipe("fp16", ("n1",))).reduction.error < 1e-2
