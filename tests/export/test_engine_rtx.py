"""Real builds with TensorRT-RTX, which needs no GPU. test_to_onnx.py builds the official architectures."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from proscale_deploy.core.errors import BuildError
from proscale_deploy.core.manifest import METADATA_KEY
from proscale_deploy.core.sidecar import Precision, read_sidecar
from proscale_deploy.export import backend
from proscale_deploy.export.checkpoint import load_state_dict, load_weights
from proscale_deploy.export.classes import classes_for
from proscale_deploy.export.config import load_config
from proscale_deploy.export.engine import BuildOptions, build_engine
from proscale_deploy.export.half import to_half
from proscale_deploy.export.model import build_model
from proscale_deploy.export.quantize import activations, insert_pairs
from proscale_deploy.export.to_onnx import export_onnx
from support.color_model import MANIFEST
from support.engine_model import CRITICAL, write_engine_model
from support.tensorrt_api import load

trt = pytest.importorskip("tensorrt_rtx", reason="needs: pip install 'proscale-deploy[rtx-build]'")

STREET = Path(__file__).parents[2] / "samples" / "street"


def tell(doing: str) -> None:
    del doing


def export_street(output: Path) -> None:
    config = load_config(STREET / "street.yaml")
    model = build_model(config.model)
    weights = load_state_dict(STREET / "street_proscale.pth")
    load_weights(model, weights)
    classes = classes_for(config.dataset, STREET / "classes.json", config.model.num_classes)
    size = (config.input.height, config.input.width)
    export_onnx(config, model, classes, output, size=size, weights_sha256=weights.sha256)


def test_the_sample_model(tmp_path: Path) -> None:
    model, engine = tmp_path / "m.onnx", tmp_path / "m.engine"
    export_street(model)
    sidecar = build_engine(model, engine, BuildOptions("tensorrt-rtx", batch=(1, 2, 4)), tell)
    assert read_sidecar(engine) == sidecar
    assert sidecar.backend_version == trt.__version__
    assert sidecar.batch == (1, 2, 4)
    assert sidecar.manifest.classes[0].name == "car"
    assert set(sidecar.precision.critical) == set(sidecar.precision.in_file) == {"FP32"}


def test_types_of_the_file_are_those_of_the_engine(tmp_path: Path) -> None:
    for dtype, name in ((np.float32, "FP32"), (np.float16, "FP16")):
        model = write_engine_model(tmp_path / f"{name}.onnx", dtype)
        sidecar = build_engine(model, model.with_suffix(".engine"), BuildOptions("tensorrt-rtx"), tell)
        assert sidecar.precision.critical == sidecar.precision.in_file == {name: len(CRITICAL)}
        assert sidecar.precision.layers[name] >= len(CRITICAL)
        assert sidecar.plugin is None
        if sidecar.gpu is None:
            assert sidecar.precision.evidence == "builder log"


def test_workspace_and_all_targets(tmp_path: Path) -> None:
    model = write_engine_model(tmp_path / "m.onnx", np.float16)
    targets = ("7.5", "8.0", "8.6", "8.9", "12.0")
    options = BuildOptions("tensorrt-rtx", workspace=64 << 20, targets=targets)
    sidecar = build_engine(model, tmp_path / "m.engine", options, tell)
    assert sidecar.targets == targets
    assert sidecar.precision.critical == {"FP16": len(CRITICAL)}


def test_an_engine_for_several_targets_is_made_for_the_oldest(tmp_path: Path) -> None:
    """The sidecar tells of all of them, and a build that fails for the oldest says which it is."""
    model = tmp_path / "m.onnx"
    chosen = frozenset({"/backbone/conv/Conv"})
    file = onnx.load(write_engine_model(model))
    pairs = insert_pairs(file, chosen, dict.fromkeys(activations(file, chosen), 3.0))
    manifest = dataclasses.replace(MANIFEST, precision="int8")
    typed = to_half(pairs, lambda node: False)
    onnx.helper.set_model_props(typed, {METADATA_KEY: manifest.to_json()})
    onnx.save(typed, model)

    def build(*targets: str) -> Precision:
        return build_engine(model, tmp_path / "m.engine", BuildOptions("tensorrt-rtx", targets=targets), tell).precision

    newer = build("8.6", "12.0")
    assert newer == build("8.6")
    assert newer.kept["INT8"] == (1, 1)
    advice = r"the oldest of them, sm_75, has; leave that out of --target"
    with pytest.raises(BuildError, match=rf"1 of 1 .* INT8 in the file were built in FP16, .*: .*{advice}"):
        build("7.5", "8.6")
    with pytest.raises(BuildError, match=r"has no such kernels for compute capability 7\.5; use a file of another"):
        build("7.5")


def test_turing_takes_no_fp32_file(tmp_path: Path) -> None:
    model = write_engine_model(tmp_path / "m.onnx", np.float32)
    with pytest.raises(BuildError, match=r"FP32 GEMM is not supported.*; Turing GPUs \(sm_75\) take FP16 files only"):
        build_engine(model, tmp_path / "m.engine", BuildOptions("tensorrt-rtx", targets=("7.5", "8.6")), tell)


def test_a_target_there_is_not(tmp_path: Path) -> None:
    model = write_engine_model(tmp_path / "m.onnx")
    expected = re.escape(f"TensorRT-RTX {trt.__version__} has no target sm_99; it has sm_75, sm_80, sm_86")
    with pytest.raises(BuildError, match=expected):
        build_engine(model, tmp_path / "m.engine", BuildOptions("tensorrt-rtx", targets=("8.6", "9.9")), tell)


def test_what_the_parser_refuses(tmp_path: Path) -> None:
    """A real complaint of a real parser, on an operator that no TensorRT has."""
    model = onnx.load(write_engine_model(tmp_path / "m.onnx"))
    (node,) = [node for node in model.graph.node if node.name == "/encoder/Transpose"]
    node.op_type, node.domain = "Unheard", "elsewhere"
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(
        BuildError, match=r"node /encoder/Transpose \(Unheard\) in module encoder: .*has nothing for it"
    ):
        build_engine(tmp_path / "m.onnx", tmp_path / "m.engine", BuildOptions("tensorrt-rtx"), tell)


def test_the_bindings_recorded_are_of_one_kind() -> None:
    """Whatever is called of TensorRT exists here too, but for what backend.py keeps from TensorRT-RTX."""
    used = {
        "IBuilderConfig": {"clear_flag", "set_flag", "set_memory_pool_limit", "add_optimization_profile"},
        "OnnxParser": {"parse", "num_errors", "get_error"},
        "ParserError": {"code", "desc", "node_name", "node_operator"},
        "BuilderFlag": {"TF32"},
        "ProfilingVerbosity": {"DETAILED"},
    }
    for version in ("10.3.0", "10.13.3", "11.1"):
        for name, members in used.items():
            assert members <= set(load(version)[name])
            assert members <= set(dir(getattr(trt, name)))
    assert backend.Backend.load("tensorrt-rtx").version == trt.__version__
