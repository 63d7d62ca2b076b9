"""The operator's two function bodies against loops in float64, in ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.grid_sample import swap_in_grid_sample
from proscale_deploy.core.operator import DOMAIN, OP_TYPE, VERSION, Attributes, gather_function, is_operator
from support.deform_attn import deform_attn_by_hand

LEVELS = {
    "one": ((3, 5),),
    "two": ((2, 3), (4, 5)),
    "three": ((2, 2), (3, 5), (7, 9)),
    "not a pyramid": ((6, 2), (1, 7)),
    "one pixel wide or high": ((1, 4), (3, 1), (1, 1)),
    "wide": ((1, 300),),
}


def make_model(*nodes: Attributes, channels: int, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """One operator node per set of attributes, each with inputs and an output of its own."""
    graph = helper.make_graph(
        [
            helper.make_node(
                OP_TYPE,
                [f"value{i}", f"sampling{i}"],
                [f"output{i}"],
                f"node{i}",
                domain=DOMAIN,
                heads=node.heads,
                points=node.points,
                levels=[side for level in node.levels for side in level],
            )
            for i, node in enumerate(nodes)
        ],
        "operators",
        [
            helper.make_tensor_value_info(f"{name}{i}", dtype, ["batch", node.tokens, width])
            for i, node in enumerate(nodes)
            for name, width in (("value", channels), ("sampling", 3 * node.samples))
        ],
        [helper.make_tensor_value_info(f"output{i}", dtype, [None] * 3) for i in range(len(nodes))],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, VERSION)]
    return helper.make_model(graph, opset_imports=opsets, functions=[gather_function()], ir_version=8)


def run(model: onnx.ModelProto, value: NDArray, sampling: NDArray, form: str) -> NDArray:
    if form == "grid sample":
        swap_in_grid_sample(model)
        assert not any(map(is_operator, model.graph.node))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"value0": value, "sampling0": sampling})[0]


def inputs(attributes: Attributes, batch: int, channels: int, seed: int = 0) -> tuple[NDArray, NDArray]:
    generator = np.random.default_rng(seed)
    value = generator.standard_normal((batch, attributes.tokens, channels), np.float32)
    return value, 1.5 * generator.standard_normal((batch, attributes.tokens, 3 * attributes.samples), np.float32)


@pytest.mark.parametrize("form", ["gather", "grid sample"])
@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize(("heads", "points", "head_dim", "batch"), [(2, 3, 4, 2), (3, 1, 1, 1)])
def test_equals_the_definition(
    levels: tuple[tuple[int, int], ...], heads: int, points: int, head_dim: int, batch: int, form: str
) -> None:
    attributes = Attributes(heads, points, levels)
    value, sampling = inputs(attributes, batch, heads * head_dim)
    output = run(make_model(attributes, channels=heads * head_dim), value, sampling, form)
    # Positions are FP32: half a unit in the last place at pixel 300 is 1.5e-5 of a pixel.
    np.testing.assert_allclose(output, deform_attn_by_hand(value, sampling, attributes), rtol=0, atol=1e-4)


@pytest.mark.parametrize("form", ["gather", "grid sample"])
def test_half_precision_keeps_positions_and_sums_in_single(form: str) -> None:
    # In FP16 a position near 300 is a multiple of a quarter of a pixel.
    attributes = Attributes(2, 2, ((1, 300), (2, 150)))
    value, sampling = (array.astype(np.float16) for array in inputs(attributes, 1, 8))
    output = run(make_model(attributes, channels=8, dtype=TensorProto.FLOAT16), value, sampling, form)
    assert output.dtype == np.float16
    # Only the output is rounded: half a unit in the last place of numbers below 4.
    np.testing.assert_allclose(output, deform_attn_by_hand(value, sampling, attributes), rtol=0, atol=2**-10)


@pytest.mark.parametrize("form", ["gather", "grid sample"])
@pytest.mark.parametrize("levels", [((4, 6),), ((1, 1),), ((2, 2), (1, 5))], ids=str)
def test_borders(levels: tuple[tuple[int, int], ...], form: str) -> None:
    """Samples exactly on pixels, half-way, on the last place that still counts, and far away, in every direction."""
    attributes = Attributes(1, 1, levels)
    marks = [-1e6, -7, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 6, 1e6]
    offsets = np.array([(dx, dy) for dx in marks for dy in marks], np.float32)  # one per image of the batch
    value, sampling = inputs(attributes, len(offsets), 2)
    sampling[..., : 2 * attributes.samples] = np.tile(offsets, attributes.samples)[:, None]
    output = run(make_model(attributes, channels=2), value, sampling, form)
    np.testing.assert_allclose(output, deform_attn_by_hand(value, sampling, attributes), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("form", "offset"),
    [(form, sign * size) for form in ("gather", "grid sample") for size in (np.inf, 3e38) for sign in (1, -1)]
    + [("gather", np.nan)],
)
def test_offsets_that_lead_nowhere_count_as_far_away(form: str, offset: float) -> None:
    attributes = Attributes(1, 2, ((4, 6), (1, 1)))
    value, sampling = inputs(attributes, 1, 2)
    sampling[0, 3, 0] = sampling[0, 4, 3] = offset
    sampling[0, 5, :2] = offset, -offset
    sampling[0, 6, :8] = offset
    output = run(make_model(attributes, channels=2), value, sampling, form)
    np.testing.assert_allclose(output, deform_attn_by_hand(value, sampling, attributes), rtol=0, atol=1e-5)


def test_one_function_serves_nodes_of_different_attributes() -> None:
    nodes = (Attributes(1, 2, ((2, 3),)), Attributes(2, 1, ((2, 3), (4, 6))), Attributes(1, 2, ((2, 3),)))
    model = make_model(*nodes, channels=4)
    feeds = {}
    for i, node in enumerate(nodes):
        feeds[f"value{i}"], feeds[f"sampling{i}"] = inputs(node, 2, 4, seed=i)
    gathered = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    other = onnx.parser.parse_function('<domain: "other", opset_import: ["" : 18]> F (x) => (y) { y = Identity (x) }')
    model.functions.append(other)
    swap_in_grid_sample(model)
    assert len(model.functions) == 3  # the other one, and one for each of two sets of attributes
    assert other in model.functions
    for found, expected in zip(
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds), gathered, strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_shapes_are_inferred_through_the_body() -> None:
    attributes = Attributes(2, 4, ((2, 3), (4, 6)))
    model = onnx.shape_inference.infer_shapes(make_model(attributes, channels=8), strict_mode=True, data_prop=True)
    shape = model.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 30, 8]


def test_no_grid_sample_in_the_body_of_the_file() -> None:
    types = {node.op_type for node in gather_function().node}
    assert "Gather" in types
    assert not types & {"GridSample", "GatherND", "ScatterND", "NonZero", "If", "Loop"}


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"heads": 2, "points": 4}, "expected attributes heads, points and levels"),
        ({"heads": 2, "levels": [2, 3]}, "found .'heads', 'levels'."),
        ({"heads": 2, "points": 4, "levels": [2, 3, 4]}, r"levels \[2, 3, 4\]"),
        ({"heads": 0, "points": 4, "levels": [2, 3]}, "must be positive"),
        ({"heads": 2, "points": 4, "levels": [2, 0]}, "must be positive"),
        ({"heads": 2, "points": 4, "levels": 5}, "must be positive"),
    ],
)
def test_wrong_attributes(attributes: dict[str, int | list[int]], message: str) -> None:
    node = helper.make_node(OP_TYPE, ["v", "s"], ["o"], domain=DOMAIN, **attributes)
    with pytest.raises(InputError, match=message):
        Attributes.of(node)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_tensorrt_rtx_parses_and_builds_the_body(dtype: int) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs: pip install 'proscale-deploy[rtx]'")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
    model = make_model(Attributes(2, 4, ((2, 3), (4, 6))), channels=16, dtype=dtype)
    assert parser.parse(model.SerializeToString()), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    assert network.get_output(0).dtype == network.get_input(0).dtype
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        profile.set_shape(tensor.name, *[(batch, *tensor.shape[1:]) for batch in (1, 1, 4)])
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config).nbytes > 0
