"""The sample model as an exported FP32 graph, and pictures of its world."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from proscale_deploy.core.manifest import Manifest
from proscale_deploy.export.calibration import CalibrationImages, sample
from proscale_deploy.export.checkpoint import load_state_dict, load_weights
from proscale_deploy.export.config import Config, load_config
from proscale_deploy.export.model import MaskFormer, build_model
from proscale_deploy.export.to_onnx import export_onnx, make_manifest
from proscale_deploy.runtime.preprocess import preprocess
from samples.street.dataset import frame_time
from samples.street.world import CLASSES, Scene

FOLDER = Path(__file__).parents[2] / "samples" / "street"
SIZE = 192, 320


@functools.cache
def trained() -> tuple[Config, MaskFormer]:
    config = load_config(FOLDER / "street.yaml")
    model = build_model(config.model)
    load_weights(model, load_state_dict(FOLDER / "street_proscale.pth"))
    return config, model


@functools.cache
def fp32_graph() -> onnx.ModelProto:
    """Exported at 192x320; not to be changed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "street.onnx"
        export_onnx(*trained(), CLASSES, path, size=SIZE, weights_sha256="")
        return onnx.load(path)


def manifest() -> Manifest:
    return make_manifest(trained()[0], CLASSES, SIZE, "")


def frame(seed: int) -> NDArray[np.uint8]:
    image, _, _ = Scene(seed).frame(frame_time(seed), SIZE)
    return image


@functools.cache
def images(first: int = 0, count: int = 16) -> CalibrationImages:
    """Streets of the seeds from ``first`` on as network inputs."""
    spec = manifest().input
    frames = (frame(seed) for seed in range(first, first + count))
    return sample(frames, lambda picture: preprocess(picture, spec)[0], "streets", minimum=1)
