"""What every task does with raw outputs: check them, and turn logits into probabilities as the official code does."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Placement, RawOutput

__all__ = ["MASK_STRIDE", "check_raw_output", "sigmoid", "softmax"]

MASK_STRIDE = 4
"""Mask logits come at a quarter of the padded input size."""


def check_raw_output(raw: RawOutput, placement: Placement, classes: Sequence[ClassInfo]) -> None:
    """Raise unless ``raw`` can belong to this placement and these classes.

    Raises:
        InputError: the number of classes or the mask size differs, or a logit is NaN or infinite.
    """
    columns = raw.class_logits.shape[1]
    if columns != len(classes) + 1:
        raise InputError(
            f"class_logits have {columns} columns, expected {len(classes)} classes and one for 'no object'; "
            "give the class list the model was trained with"
        )
    expected = tuple(edge // MASK_STRIDE for edge in placement.padded_hw)
    found = raw.mask_logits.shape[1:]
    if found != expected:
        height, width = placement.padded_hw
        raise InputError(
            f"mask_logits are {found[0]}x{found[1]}, expected {expected[0]}x{expected[1]}, a quarter of the network's "
            f"{height}x{width} input; preprocess with the input size of this model file"
        )
    for name, logits in (("class_logits", raw.class_logits), ("mask_logits", raw.mask_logits)):
        if not np.isfinite(logits).all():
            count = int(np.count_nonzero(~np.isfinite(logits)))
            raise InputError(
                f"{name} hold {count} NaN or infinite values of {logits.size}, expected finite logits; "
                "the model has overflowed: compare it with the fp32 model file"
            )


def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), elementwise."""
    y = np.negative(x)
    with np.errstate(over="ignore"):  # below -88 exp overflows to infinity and the result is 0, as it should be
        np.exp(y, out=y)
    y += 1
    return np.reciprocal(y, out=y)


def softmax(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp(x) / sum(exp(x)) over the last axis."""
    y: NDArray[np.float32] = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y
