"""What every session checks: the images it is given, the logits it gives back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import RawOutput
from proscale_deploy.runtime.logits import MASK_STRIDE

__all__ = ["CLASS_LOGITS", "INPUT", "MASK_LOGITS", "OUTPUTS", "check_images", "check_output_shapes", "raw_outputs"]

INPUT = "image"
CLASS_LOGITS, MASK_LOGITS = OUTPUTS = ("class_logits", "mask_logits")


def check_images(images: NDArray[Any], manifest: Manifest) -> None:
    """Raise unless ``images`` are (B, 3, H, W) float32, B > 0, of the model's input size.

    Raises:
        InputError: they are not.
    """
    expected = (3, manifest.input.height, manifest.input.width)
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != expected or not len(images):
        raise InputError(
            f"expected images (batch, {', '.join(map(str, expected))}) float32, "
            f"found {images.shape} {images.dtype}; make them with proscale_deploy.runtime.preprocess"
        )


def check_output_shapes(shapes: Mapping[str, tuple[int, ...]], manifest: Manifest, batch: int) -> None:
    """Raise unless the outputs, by name, have the shapes that the manifest promises.

    Raises:
        InputError: they have not.
    """
    spec, queries = manifest.input, manifest.queries
    expected = (
        (batch, queries, len(manifest.classes) + 1),
        (batch, queries, spec.height // MASK_STRIDE, spec.width // MASK_STRIDE),
    )
    found = tuple(shapes[name] for name in OUTPUTS)
    if found != expected:
        raise InputError(
            f"the model gave class_logits {found[0]} and mask_logits {found[1]}, but its manifest says "
            f"{expected[0]} and {expected[1]}; export the model again"
        )


def raw_outputs(classes: NDArray[np.float32], masks: NDArray[np.float32]) -> list[RawOutput]:
    """(B, Q, K+1) and (B, Q, h, w) -> B outputs."""
    return [RawOutput(*output) for output in zip(classes, masks, strict=True)]
