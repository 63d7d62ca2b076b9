"""Exported networks against the golden outputs, and what stands in the files."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from proscale_deploy import __version__
from proscale_deploy.core.manifest import METADATA_KEY, Manifest
from proscale_deploy.core.operator import Attributes, gather_function, is_operator
from proscale_deploy.core.types import ClassInfo, InputSpec, Thresholds
from proscale_deploy.export.config import Config
from proscale_deploy.export.engine import BuildOptions, build_engine
from proscale_deploy.export.model import MaskFormer, build_model
from proscale_deploy.export.summary import Summary
from proscale_deploy.export.to_onnx import export_onnx
from proscale_deploy.runtime.session import Session, open_session
from support.reference import CASES, Case, load_case, relative_l2

LIMIT = 2e-4
"""Relative L2 error, float32."""

OFFICIAL = ("r50_proscale_3_3_3", "swint_proscale_3_3_3")
"""Of the large cases, one of each backbone."""

THRESHOLDS = Thresholds(object_mask=0.7, max_instances=50, tasks=("panoptic", "semantic"))


@dataclass(frozen=True)
class Exported:
    case: Case
    model: MaskFormer
    classes: tuple[ClassInfo, ...]
    summary: Summary
    size: tuple[int, int]

    @property
    def path(self) -> Path:
        return self.summary.output


@pytest.fixture(scope="module", params=CASES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    case = load_case(request.param)
    model = build_model(case.spec)
    model.load_state_dict(case.weights, strict=False)
    height, width = case.image.shape[2:]
    spec = InputSpec(800, 1344, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB", 800, 1333)
    config = Config(case.spec, spec, THRESHOLDS, dataset=None, sha256="c" * 64)
    classes = tuple(ClassInfo(f"class {i}", i % 2 == 0, (i, 0, 255), i + 1) for i in range(case.spec.num_classes))
    output = tmp_path_factory.mktemp(request.param) / "model.onnx"
    summary = export_onnx(config, model, classes, output, size=(height, width), weights_sha256="d" * 64)
    return Exported(case, model, classes, summary, (height, width))


@pytest.fixture(scope="module")
def graph(exported: Exported) -> onnx.ModelProto:
    return onnx.load(exported.path)


@pytest.fixture(scope="module")
def engine(exported: Exported) -> Iterator[Session]:
    with open_session(exported.path) as session:
        yield session


def encoder_layers(case: Case) -> Counter[int]:
    """Number of levels -> encoder layers that see them."""
    proscale = case.spec.pixel_decoder.proscale
    if proscale is None:
        return Counter({3: case.spec.pixel_decoder.layers})
    return Counter({levels: count for levels, count in enumerate(proscale.stage_layers, start=1) if count})


def test_golden_outputs_from_the_file(exported: Exported) -> None:
    """As any runtime takes it, with the body that stands in it."""
    golden = exported.case.golden
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    classes, masks = session.run(["class_logits", "mask_logits"], {"image": exported.case.image.numpy()})
    assert relative_l2(classes[0], golden["pred_logits"]) < LIMIT
    assert relative_l2(masks[0, :: len(masks[0]) // len(golden["pred_masks"])], golden["pred_masks"]) < LIMIT


def test_golden_outputs_from_the_runtime(exported: Exported, engine: Session) -> None:
    golden = exported.case.golden
    (output,) = engine.run(exported.case.image.numpy())
    assert relative_l2(output.class_logits, golden["pred_logits"]) < LIMIT
    masks = output.mask_logits[:: len(output.mask_logits) // len(golden["pred_masks"])]
    assert relative_l2(masks, golden["pred_masks"]) < LIMIT


def test_an_image_gives_the_same_in_any_batch(exported: Exported, engine: Session) -> None:
    images = np.random.default_rng(0).standard_normal((3, 3, *exported.size), np.float32)
    other, *three = engine.run(images)
    two = engine.run(images[1:])
    one = engine.run(images[2:])
    for found, expected in ((three[0], two[0]), (three[1], one[0]), (two[1], one[0])):
        assert relative_l2(found.class_logits, expected.class_logits) < LIMIT
        assert relative_l2(found.mask_logits, expected.mask_logits) < LIMIT
    assert relative_l2(other.mask_logits, one[0].mask_logits) > LIMIT  # they do depend on the image


def test_inputs_and_outputs(exported: Exported, graph: onnx.ModelProto) -> None:
    def shapes(values: list[onnx.ValueInfoProto]) -> dict[str, list[str | int]]:
        return {v.name: [dim.dim_param or dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in values}

    (height, width), spec = exported.size, exported.case.spec
    assert shapes(graph.graph.input) == {"image": ["batch", 3, height, width]}
    assert shapes(graph.graph.output) == {
        "class_logits": ["batch", spec.decoder.queries, spec.num_classes + 1],
        "mask_logits": ["batch", spec.decoder.queries, height // 4, width // 4],
    }
    values = [*graph.graph.input, *graph.graph.output]
    assert {value.type.tensor_type.elem_type for value in values} == {onnx.TensorProto.FLOAT}


def test_nodes(exported: Exported, graph: onnx.ModelProto) -> None:
    onnx.checker.check_model(graph, full_check=True)
    assert {opset.domain: opset.version for opset in graph.opset_import} == {"": 18, "proscale": 1}
    types = Counter(node.op_type for node in graph.graph.node)
    for absent in ("BatchNormalization", "GridSample", "NonZero", "ScatterND", "If", "Loop", "Cos", "Sin", "Range"):
        assert absent not in types, absent
    # Messages name the module a node is of.
    assert all(
        node.name.startswith(("/backbone/", "/pixel_decoder/", "/predictor/"))
        for node in graph.graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm", "LayerNormalization")
    )
    assert exported.summary.nodes == sum(types.values())


def test_the_operator_is_one_node_per_encoder_layer(exported: Exported, graph: onnx.ModelProto) -> None:
    nodes = [Attributes.of(node) for node in graph.graph.node if is_operator(node)]
    layers = encoder_layers(exported.case)
    assert Counter(len(node.levels) for node in nodes) == layers
    assert exported.summary.operator_nodes == layers.total()
    (height, width), spec = exported.size, exported.case.spec.pixel_decoder
    coarsest = exported.case.golden["encoder_res5"].shape[1:]
    finest = (height // 8, width // 8)
    for node in nodes:
        assert (node.heads, node.points) == (spec.heads, spec.points)
        assert node.levels[0] == coarsest
        assert len(node.levels) < 3 or node.levels[2] == finest
    assert list(graph.functions) == [gather_function()]


def test_manifest(exported: Exported, graph: onnx.ModelProto) -> None:
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    height, width = exported.size
    manifest = Manifest.from_json(metadata[METADATA_KEY], "model.onnx")
    assert manifest.architecture.startswith(("PRO-SCALE", "Mask2Former"))
    assert manifest == Manifest(
        architecture=graph.doc_string,
        input=InputSpec(height, width, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB", 800, 1333),
        classes=exported.classes,
        thresholds=THRESHOLDS,
        queries=exported.case.spec.decoder.queries,
        precision="fp32",
        config_sha256="c" * 64,
        weights_sha256="d" * 64,
        version=__version__,
    )
    assert (graph.producer_name, graph.producer_version) == ("proscale-deploy", __version__)


def test_the_model_is_left_as_it_was(exported: Exported) -> None:
    assert all(module.training for module in exported.model.modules())
    assert all(parameter.requires_grad for parameter in exported.model.parameters())
    state = exported.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in exported.case.weights.items() if name in state)


def test_summary(exported: Exported) -> None:
    summary = exported.summary
    assert summary.bytes == exported.path.stat().st_size
    assert summary.parameters == sum(parameter.numel() for parameter in exported.model.parameters())
    assert summary.error < 1e-4
    assert summary.bytes < 1.1 * 4 * summary.parameters + 3e6  # constants and graph beside the weights


def test_multiply_accumulates_are_those_pytorch_counts(exported: Exported) -> None:
    """torch counts the same, without the operator's sampling, and with what became a constant."""
    model = build_model(exported.case.spec).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *exported.size))
    counts = {name: sum(flops.values()) // 2 for name, flops in counter.get_flop_counts().items()}
    spec = exported.case.spec
    sizes = [exported.case.golden[f"encoder_{level}"].shape[1:] for level in ("res5", "res4", "res3")]
    sampling = 0
    for levels, layers in encoder_layers(exported.case).items():
        tokens = sum(h * w for h, w in sizes[:levels])
        sampling += 4 * layers * tokens * spec.pixel_decoder.channels * levels * spec.pixel_decoder.points
    macs = exported.summary.macs
    assert set(macs) == {"backbone", "pixel decoder", "mask decoder"}
    assert macs["backbone"] == counts["MaskFormer.backbone"]
    assert macs["pixel decoder"] - sampling == counts["MaskFormer.sem_seg_head.pixel_decoder"]
    assert 0.5 * counts["MaskFormer.sem_seg_head.predictor"] < macs["mask decoder"]
    assert macs["mask decoder"] <= counts["MaskFormer.sem_seg_head.predictor"]


def test_tensorrt_rtx_builds_the_file(exported: Exported) -> None:
    """On a machine without a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="needs: pip install 'proscale-deploy[rtx-build]'")
    if exported.summary.parameters > 10e6 and exported.case.name not in OFFICIAL:
        return  # these take the time, and meet the same operators
    engine = exported.path.with_suffix(".engine")
    options = BuildOptions("tensorrt-rtx", batch=(1, 1, 4), targets=("8.6", "12.0"), optimization_level=0)
    precision = build_engine(exported.path, engine, options, lambda doing: None).precision
    assert engine.stat().st_size > 4 * exported.summary.parameters  # the weights are in it
    assert set(precision.critical) == set(precision.in_file) == {"FP32"}
    # Products that share an input become one; what is left is of the same order as in the file.
    assert 0.7 < precision.critical["FP32"] / precision.in_file["FP32"] <= 1
