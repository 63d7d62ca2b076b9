"""What the parser is given: no GridSample, the operator's node or its body, names that say where a node is."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from proscale_deploy.core.errors import BuildError
from proscale_deploy.core.operator import is_operator
from proscale_deploy.export.engine_graph import critical_types, graph_for_engine
from support.engine_model import CRITICAL, OPERATOR, engine_model


def test_with_the_plugin_the_bodies_go_and_the_node_stays() -> None:
    model = engine_model()
    graph = onnx.ModelProto.FromString(graph_for_engine(model, plugin=True))
    assert not graph.functions
    assert sum(map(is_operator, graph.graph.node)) == 1
    assert len(model.functions) == 1  # the caller's is as it was


def test_without_it_the_body_takes_the_place_of_the_node() -> None:
    graph = onnx.ModelProto.FromString(graph_for_engine(engine_model(), plugin=False))
    onnx.checker.check_model(graph, full_check=True)
    assert not graph.functions
    assert not any(map(is_operator, graph.graph.node))
    names = Counter(node.name for node in graph.graph.node)
    assert max(names.values()) == 1
    inner = [name for name in names if name.startswith(f"{OPERATOR}/")]
    assert len(inner) > 100
    assert set(names) - set(inner) == {node.name for node in engine_model().graph.node} - {OPERATOR}


def test_inlined_graph_computes_the_same() -> None:
    model = engine_model()
    image = np.random.default_rng(1).normal(size=(2, 3, 16, 24)).astype(np.float32)
    inlined = graph_for_engine(model, plugin=False)
    first, second = (
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"image": image})
        for data in (model.SerializeToString(), inlined)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("inside", [False, True])
def test_grid_sample_is_refused(inside: bool) -> None:
    model = engine_model()
    node = helper.make_node("GridSample", ["feature", "grid"], ["sampled"], name="/decoder/GridSample")
    if inside:
        body = helper.make_function("other", "Body", ["feature", "grid"], ["sampled"], [node], model.opset_import)
        model.functions.append(body)
        model.opset_import.append(helper.make_opsetid("other", 1))
        node = helper.make_node("Body", ["feature", "grid"], ["sampled"], domain="other")
    model.graph.node.append(node)
    for plugin in (True, False):
        with pytest.raises(BuildError, match=r"is a GridSample, which TensorRT .* miscompile silently"):
            graph_for_engine(model, plugin=plugin)


@pytest.mark.parametrize(("dtype", "name"), [(np.float32, "FP32"), (np.float16, "FP16")])
def test_types_of_the_file(dtype: type[np.floating], name: str) -> None:
    model = engine_model(dtype)
    assert critical_types(model, plugin=False) == dict.fromkeys(CRITICAL, name)
    assert critical_types(model, plugin=True) == dict.fromkeys([*CRITICAL, OPERATOR], name)


def test_int8_is_between_dequantize_nodes() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["x"]),
        helper.make_node("DequantizeLinear", ["w_q", "scale"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"], name="both"),
        helper.make_node("Conv", ["x", "w_float"], ["z"], name="one"),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("q", TensorProto.INT8, ["batch", 1, 4, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "yz"],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("w_q", TensorProto.INT8, [1, 1, 1, 1], [3]),
            helper.make_tensor("w_float", TensorProto.FLOAT, [1, 1, 1, 1], [3]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert critical_types(model, plugin=False) == {"both": "INT8", "one": "FP32"}
