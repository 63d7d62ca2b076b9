"""What every task does with raw outputs: check them, and turn logits into probabilities as the official code does."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Placement, RawOutput, Size

__all__ = [
    "MASK_STRIDE",
    "check_class_logits",
    "check_mask_size",
    "check_raw_output",
    "not_finite",
    "sigmoid",
    "softmax",
]

MASK_STRIDE = 4
"""Mask logits come at a quarter of the padded input size."""


def check_raw_output(raw: RawOutput, placement: Placement, classes: Sequence[ClassInfo]) -> None:
    """Raise unless ``raw`` can belong to this placement and these classes.

    Raises:
        InputError: the number of classes or the mask size differs, or a logit is NaN or infinite.
    """
    check_class_logits(raw.class_logits, classes)
    check_mask_size(raw.mask_logits.shape[1:], placement)
    _check_finite("mask_logits", raw.mask_logits)


def check_class_logits(class_logits: NDArray[np.float32], classes: Sequence[ClassInfo]) -> None:
    """Raise unless (Q, K+1) logits can belong to these classes.

    Raises:
        InputError: the number of classes differs, or a logit is NaN or infinite.
    """
    columns = class_logits.shape[1]
    if columns != len(classes) + 1:
        raise InputError(
            f"class_logits have {columns} columns, expected {len(classes)} classes and one for 'no object'; "
            "give the class list the model was trained with"
        )
    _check_finite("class_logits", class_logits)


def check_mask_size(found: Size, placement: Placement) -> None:
    """Raise unless mask logits of this size can belong to this placement.

    Raises:
        InputError: they cannot.
    """
    expected = tuple(edge // MASK_STRIDE for edge in placement.padded_hw)
    if found != expected:
        height, width = placement.padded_hw
        raise InputError(
            f"mask_logits are {found[0]}x{found[1]}, expected {expected[0]}x{expected[1]}, a quarter of the network's "
            f"{height}x{width} input; preprocess with the input size of this model file"
        )


def not_finite(name: str, count: int, size: int) -> InputError:
    """What to raise where ``count`` of ``size`` logits are NaN or infinite."""
    return InputError(
        f"{name} hold {count} NaN or infinite values of {size}, expected finite logits; "
        "the model has overflowed: compare it with the fp32 model file"
    )


def _check_finite(name: str, logits: NDArray[np.float32]) -> None:
    if not np.isfinite(logits).all():
        raise not_finite(name, int(np.count_nonzero(~np.isfinite(logits))), logits.size)


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
