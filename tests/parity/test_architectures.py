"""The official architectures in FP32, FP16 and INT8 against PyTorch, by the errors of their outputs.

Their weights are synthetic (``tests/reference``): such a network finds nothing and is less sure of everything than a
trained one, so that what a lower precision costs in results is measured on the sample model (``test_street.py``).
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo, InputSpec, RawOutput, Thresholds
from proscale_deploy.export.calibration import CalibrationImages, sample
from proscale_deploy.export.config import Config
from proscale_deploy.export.engine import BuildOptions, build_engine
from proscale_deploy.export.model import build_model
from proscale_deploy.export.precision import Recipe
from proscale_deploy.export.to_onnx import export_onnx
from proscale_deploy.runtime.preprocess import preprocess
from samples.street.dataset import HELD_OUT_SEEDS
from support import street
from support.reference import load_case
from support.stations import STATIONS, output_errors, reduced, station_or_skip

SIZE = 96, 128
SPEC = InputSpec(*SIZE, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "RGB", *SIZE)
PICTURES = 5

BOUNDS = {
    "swint_proscale_3_3_3": {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.15},
    "r50_mask2former": {"fp32": 1e-5, "fp16": 5e-3, "int8": 0.1},
}
"""Of the larger of both outputs' relative L2 errors, each the median over the pictures; the sample model is PRO-SCALE
with a ResNet. Measured: Swin-T 9.8e-7, 2.1e-3, 0.036; ResNet-50 8.1e-7, 1.2e-3, 0.034."""


@dataclass(frozen=True)
class Exported:
    name: str
    graph: onnx.ModelProto
    images: NDArray[np.float32]
    expected: list[RawOutput]
    """What PyTorch makes of ``images``."""


def network_input(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    return preprocess(cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA), SPEC)[0]


@pytest.fixture(scope="module")
def calibration() -> CalibrationImages:
    return sample((street.frame(seed) for seed in range(8)), network_input, "streets", minimum=1)


@pytest.fixture(scope="module", params=BOUNDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    case = load_case(request.param)
    model = build_model(case.spec)
    model.load_state_dict(case.weights, strict=False)
    config = Config(case.spec, SPEC, Thresholds(), dataset=None, sha256="c" * 64)
    classes = tuple(ClassInfo(f"class {i}", i % 2 == 0, (i, 0, 255), i + 1) for i in range(case.spec.num_classes))
    path = tmp_path_factory.mktemp(request.param) / "model.onnx"
    export_onnx(config, model, classes, path, size=SIZE, weights_sha256="d" * 64)
    images = np.stack([network_input(street.frame(seed)) for seed in HELD_OUT_SEEDS[:PICTURES]])
    with torch.inference_mode():
        outputs = model.eval()(torch.from_numpy(images))
    expected = [RawOutput(c.numpy(), m.numpy()) for c, m in zip(*outputs, strict=True)]
    return Exported(request.param, onnx.load(path), images, expected)


@pytest.fixture(scope="module")
def graphs(exported: Exported, calibration: CalibrationImages) -> dict[str, onnx.ModelProto]:
    return {
        "fp32": exported.graph,
        "fp16": reduced(exported.graph, Recipe("fp16")),
        "int8": reduced(exported.graph, Recipe("int8", images=calibration)),
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", STATIONS)  # not the fixture of the module: a case would be made anew for each station
def test_outputs(
    name: str, exported: Exported, graphs: dict[str, onnx.ModelProto], precision: str, tmp_path: Path
) -> None:
    with station_or_skip(name)(graphs[precision], tmp_path) as session:
        found = [output for image in exported.images for output in session.run(image[None])]
    errors = np.median(list(map(output_errors, found, exported.expected)), axis=0)
    assert errors.max() <= BOUNDS[exported.name][precision], errors


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_tensorrt_rtx_builds_it(graphs: dict[str, onnx.ModelProto], precision: str, tmp_path: Path) -> None:
    """On a machine without a GPU, in the types of the file; test_to_onnx.py builds FP32."""
    pytest.importorskip("tensorrt_rtx", reason="needs: pip install 'proscale-deploy[rtx-build]'")
    model, engine = tmp_path / "model.onnx", tmp_path / "model.engine"
    onnx.save(graphs[precision], model)
    options = BuildOptions("tensorrt-rtx", targets=("8.6", "12.0"), optimization_level=0)
    types = build_engine(model, engine, options, lambda doing: None).precision
    wanted = {"fp16": {"FP16"}, "int8": {"FP16", "INT8"}}[precision]
    assert set(types.in_file) == wanted
    assert set(types.critical) == wanted
