"""What the tiled CUDA kernel takes, and how exact it is."""

import dataclasses

import numpy as np

from proscale_deploy.core.native import DType
from support.deform_attn_cases import Case

__all__ = ["HALVES", "is_tileable", "widened"]

HALVES = {DType.FLOAT: 0, DType.HALF: 6, DType.BFLOAT16: 1}
"""What it adds to c of ``Case.check``: rounded weights, and for half sums over two samples."""


def _head_dim(case: Case) -> int:
    return case.value.shape[-1] // case.attributes.heads


def _group(case: Case) -> int:
    """Heads that a block works on: eight lanes of 16 bytes, or one head that is larger."""
    return max(1, 128 // (_head_dim(case) * case.value.itemsize))


def is_tileable(case: Case) -> bool:
    return (
        _head_dim(case) in (8, 16, 32, 64)
        and case.attributes.heads % _group(case) == 0
        and case.sampling.shape[-1] % 2 == 0
        and min(map(min, case.attributes.levels)) >= 2
    )


def widened(case: Case) -> Case:
    """With as many copies of its heads as a block works on; each sees other tokens' values."""
    attributes, copies = case.attributes, _group(case)
    heads = copies * attributes.heads
    value = np.concatenate([np.roll(case.value, i, 1) for i in range(copies)], -1)
    offsets, logits = np.split(case.sampling, [2 * attributes.samples], -1)
    sampling = np.concatenate([offsets] * copies + [logits] * copies, -1)
    return Case(case.name, case.dtype, dataclasses.replace(attributes, heads=heads), value, sampling)
