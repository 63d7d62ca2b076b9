"""The sample model in FP32, FP16 and INT8 against PyTorch: panoptic quality on all held-out streets, and its outputs.

Every street is rendered once and seen by all of them.
"""

import json
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proscale_deploy.export.metrics import PanopticQuality
from proscale_deploy.export.precision import Recipe
from proscale_deploy.runtime.postprocess import panoptic
from samples.street.dataset import HELD_OUT_SEEDS
from samples.street.evaluate import FOLDER, held_out_frames, session_network
from samples.street.validation import torch_network
from samples.street.world import CLASSES
from support import street
from support.stations import STATIONS, Station, output_errors, reduced

CALIBRATION_SEEDS = range(32)

LOSS = {"fp32": 0.05, "fp16": 0.2, "int8": 0.6}
"""Points of PQ that a file may lose: FP32 against PyTorch, the others against FP32. Measured: 0.00, -0.08, 0.23."""

BOUNDS = {"fp32": 1e-5, "fp16": 3e-3, "int8": 0.12}
"""Of the median relative L2 errors of class_logits and mask_logits against PyTorch. Measured: FP32 2.3e-7 and 2.9e-7,
FP16 1.0e-3 and 8.2e-4, INT8 0.055 and 0.046."""


@dataclass(frozen=True)
class Measured:
    quality: dict[str, float]
    """PQ in percent, of "torch" and of the files by their precision."""
    errors: dict[str, NDArray[np.float64]]
    """Median of the relative L2 errors of class_logits and mask_logits against PyTorch."""


@pytest.fixture(scope="module")
def measured(station: Station, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    recipes = {
        "fp32": None,
        "fp16": Recipe("fp16"),
        "int8": Recipe("int8", images=street.images(CALIBRATION_SEEDS.start, len(CALIBRATION_SEEDS))),
    }
    config, model = street.trained()
    with ExitStack() as stack:
        networks = {"torch": torch_network(model, config.input)}
        for name, recipe in recipes.items():
            graph = street.fp32_graph() if recipe is None else reduced(street.fp32_graph(), recipe)
            session = stack.enter_context(station(graph, tmp_path_factory.mktemp(name)))
            networks[name] = session_network(session)
        # PyTorch's threads wait for each other in a loop, on cores that others need.
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        quality = {name: PanopticQuality(CLASSES) for name in networks}
        errors: dict[str, list[tuple[float, float]]] = {name: [] for name in networks}
        for frame in held_out_frames(street.SIZE):
            outputs = {name: network(frame.image) for name, network in networks.items()}
            for name, (raw, placement) in outputs.items():
                quality[name].add(panoptic(raw, placement, CLASSES, config.thresholds), frame.truth)
                errors[name].append(output_errors(raw, outputs["torch"][0]))
    return Measured(
        {name: metric.result().all.pq for name, metric in quality.items()},
        {name: np.median(pairs, axis=0) for name, pairs in errors.items()},
    )


def test_ranges_do_not_come_from_the_streets_they_are_judged_on() -> None:
    assert not set(CALIBRATION_SEEDS) & set(HELD_OUT_SEEDS)


def test_pytorch_is_as_good_as_recorded(measured: Measured) -> None:
    recorded = json.loads((FOLDER / "results.json").read_text())
    assert recorded["measured"]["seeds"] == [HELD_OUT_SEEDS[0], HELD_OUT_SEEDS[-1]]
    assert measured.quality["torch"] == pytest.approx(recorded["panoptic"]["all"]["pq"], abs=0.05)


def test_fp32_is_pytorch(measured: Measured) -> None:
    assert abs(measured.quality["fp32"] - measured.quality["torch"]) <= LOSS["fp32"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_quality_survives(measured: Measured, precision: str) -> None:
    assert measured.quality["fp32"] - measured.quality[precision] <= LOSS[precision], measured.quality


@pytest.mark.parametrize("precision", BOUNDS)
def test_outputs(measured: Measured, precision: str) -> None:
    errors = measured.errors[precision]
    assert errors.max() <= BOUNDS[precision], errors


def test_benchmarks_say_so(station: Station, measured: Measured) -> None:
    """The figures of BENCHMARKS.md are those of this model; another CPU rounds a little otherwise."""
    if station is not STATIONS["ONNX Runtime"]:
        return  # the table is about ONNX Runtime
    text = (Path(__file__).parents[2] / "BENCHMARKS.md").read_text()
    rows = re.findall(r"^\| (FP32|FP16|INT8) \| [\d.]+ MB \| ([\d.]+) \|", text, re.MULTILINE)
    written = {name.lower(): float(quality) for name, quality in rows}
    assert written.keys() == BOUNDS.keys()
    for precision, quality in written.items():
        assert measured.quality[precision] == pytest.approx(quality, abs=0.05 if precision == "fp32" else 0.2)
