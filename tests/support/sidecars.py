"""A sidecar as a build on an Orin leaves it."""

from proscale_deploy.core.sidecar import BuiltPlugin, Precision, Sidecar, host_platform
from support.color_model import MANIFEST

SIDECAR = Sidecar(
    engine_sha256="e" * 64,
    onnx_sha256="f" * 64,
    backend="tensorrt",
    backend_version="10.3.0",
    platform=host_platform(),
    gpu="Orin",
    compute_capability="8.7",
    targets=(),
    hardware_compatibility="none",
    version_compatible=False,
    batch=(1, 2, 4),
    workspace=1 << 30,
    optimization_level=3,
    plugin=BuiltPlugin("ProScaleMSDeformAttn", "1", "a" * 64),
    precision=Precision(
        evidence="engine inspector",
        layers={"FP16": 90, "FP32": 10},
        critical={"FP16": 30, "FP32": 1},
        in_file={"FP16": 33, "FP32": 1},
        kept={"FP16": (32, 32), "FP32": (1, 1)},
    ),
    seconds=412.5,
    version="0.1.0",
    manifest=MANIFEST,
)
