"""Whether two forms of a network give the same outputs."""

from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from proscale_deploy.core.errors import ExportError
from proscale_deploy.core.types import Size

__all__ = ["OUTPUTS", "Network", "check_equal", "onnx_network", "relative_l2"]

OUTPUTS = ("class_logits", "mask_logits")
TOLERANCE = 1e-4
"""Largest relative L2 error of an output."""
ATTEMPTS = 3
"""A pixel whose mask logit is zero up to rounding falls on either side of the attention's threshold, and the outputs
then differ for that image, rarely. A wrong graph differs for every image."""

Network = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""Images (B, 3, H, W) -> one array per name in OUTPUTS."""


def onnx_network(model: bytes) -> Network:
    """A serialised ONNX model in ONNX Runtime, opened for each call: networks compared never fill memory together.

    Calling it raises ExportError where ONNX Runtime fails.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it raises what it would log as an error
    options.enable_mem_pattern = False  # it trades memory for speed in later calls

    def run(images: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            outputs: Sequence[NDArray[np.float32]] = session.run(list(OUTPUTS), {"image": images})
        except Exception as error:  # its exceptions have no base of their own
            reason = str(error).partition("\n")[0]
            raise ExportError(f"ONNX Runtime cannot run the network on a batch of {len(images)}: {reason}") from error
        return outputs

    return run


def relative_l2(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """|found - expected| / |expected|, in float64; NaN where a value is NaN.

    Raises:
        ExportError: the shapes differ.
    """
    if found.shape != expected.shape:
        raise ExportError(f"expected an output of shape {expected.shape}, found {found.shape}")
    difference = np.linalg.norm((found.astype(np.float64) - expected).ravel())
    return float(difference / np.linalg.norm(expected.astype(np.float64).ravel()))


def check_equal(found: Network, expected: Network, size: Size, batch: int, what: str) -> float:
    """Compare two networks on images of seeded noise, and return the largest relative L2 error of an output.

    Raises:
        ExportError: it exceeds TOLERANCE for every image; ``what`` begins the message.
    """
    errors = []
    for seed in range(ATTEMPTS):
        images = np.random.default_rng(seed).standard_normal((batch, 3, *size)).astype(np.float32)
        pairs = zip(found(images), expected(images), strict=True)
        error = float(np.max([relative_l2(*pair) for pair in pairs]))  # unlike max(), NaN if one is
        if error < TOLERANCE:
            return error
        errors.append(error)
    raise ExportError(
        f"{what}: relative L2 errors {', '.join(f'{error:.1e}' for error in errors)} on {ATTEMPTS} batches of {batch}, "
        f"expected below {TOLERANCE:.0e}; nothing was written. Install the tested versions: pip install -c "
        "constraints.txt torch onnx onnxsim onnxruntime"
    )
