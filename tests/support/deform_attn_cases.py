"""Inputs that an implementation of the operator must get right: sizes, borders, extreme offsets and logits."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.native import DType
from proscale_deploy.core.operator import Attributes
from proscale_deploy.core.types import Size
from support.deform_attn import deform_attn_exact

__all__ = ["LEVELS", "Case", "cases", "decode", "encode"]

LEVELS: dict[str, tuple[Size, ...]] = {
    "one": ((3, 5),),
    "two": ((2, 3), (4, 5)),
    "three": ((7, 11), (13, 21), (25, 42)),  # the widths and heights of 800x1344, as they are related there
    "not a pyramid": ((6, 2), (1, 7), (9, 4)),
    "one pixel wide or high": ((1, 4), (3, 1), (1, 1)),
    "two pixels": ((2, 2), (2, 9), (9, 2)),
    "one pixel": ((1, 1),),
    "wide": ((1, 1000),),
    "eight": ((1, 1), (1, 2), (2, 2), (3, 2), (3, 5), (5, 7), (7, 7), (8, 13)),
}
_ROUNDING = {DType.FLOAT: 0.0, DType.HALF: 2.0**-11, DType.BFLOAT16: 2.0**-8}
"""The largest relative error of rounding a float to the type."""
_LARGEST = {DType.FLOAT: 3e38, DType.HALF: 65504.0, DType.BFLOAT16: 3e38}


def encode(array: NDArray, dtype: DType) -> NDArray:
    """As float32, float16, or the bits of a bfloat16 near it (the upper half of the float32)."""
    if dtype == DType.BFLOAT16:
        return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return array.astype(np.float16 if dtype == DType.HALF else np.float32)


def decode(array: NDArray) -> NDArray:
    """What :func:`encode` made, as floating-point numbers of the same values."""
    return (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array


@dataclass(frozen=True)
class Case:
    name: str
    dtype: DType
    attributes: Attributes
    value: NDArray
    """(B, S, C), encoded."""
    sampling: NDArray
    """(B, S, heads x levels x points x 3), encoded."""

    def check(self, output: NDArray, tokens: list[int] | None = None, *, halves: int = 0) -> None:
        """That ``output`` (B, S or the number of ``tokens``, C), encoded, is as exact as float32 inside allows.

        The bound for half is c 2^-11 S plus the term of the positions, with c = 1.02: one rounding of the result, and
        1e-5 of float32 inside. For bfloat16, whose rounding is eight times coarser, c = 8.02. ``halves`` is added to c:
        how often a kernel rounds a weight or a sum to half. Half's smallest steps, 2^-25, count for every pixel read.
        """
        assert output.dtype == self.value.dtype
        exact = deform_attn_exact(decode(self.value), decode(self.sampling), self.attributes, tokens)
        pixels = 4 * self.attributes.samples // self.attributes.heads
        inside = exact.bound() + halves * 2.0**-11 * (
            exact.magnitude + 2.0**-14 * pixels * abs(decode(self.value)).max()
        )
        rounding = _ROUNDING[self.dtype]
        subnormal = 2.0**-25 if self.dtype == DType.HALF else 0.0  # half a step of the smallest numbers
        bound = inside + rounding * (abs(exact.output) + inside) + subnormal
        found = decode(output).astype(np.float64)
        assert (np.isnan(found) == np.isnan(exact.output)).all(), "NaN elsewhere"
        error = np.nan_to_num(abs(found - exact.output) / bound)
        worst = np.unravel_index(error.argmax(), error.shape)
        assert error[worst] <= 1, f"{error[worst]:.2f} of the bound at {worst}: {found[worst]}, {exact.output[worst]}"


def cases(dtype: DType) -> Iterator[Case]:
    """All cases of one type, seeded: the same ones in every process."""
    for name, levels in LEVELS.items():
        yield _case(name, dtype, Attributes(2, 3, levels), 8)
    for head_dim in (1, 3, 8, 16, 24, 32, 64, 100):
        yield _case(f"head_dim {head_dim}", dtype, Attributes(2, 4, LEVELS["two"]), head_dim)
    yield _case("one head", dtype, Attributes(1, 1, LEVELS["two"]), 16)
    yield _case("odd heads", dtype, Attributes(5, 8, LEVELS["two"]), 8)
    yield _case("as deployed", dtype, Attributes(8, 4, LEVELS["three"]), 32, batch=1)
    for levels in (((4, 6),), ((2, 2),), ((1, 5),), ((1, 1),)):
        yield _borders(dtype, *levels)
    for scale in (0.0, 30.0):
        yield _case(f"logits of size {scale:g}", dtype, Attributes(2, 3, LEVELS["two"]), 8, logits=scale)
    sizes = sorted({1e4, 65504.0, _LARGEST[dtype], np.inf})
    for offset in (*sizes, *(-size for size in sizes), np.nan):
        yield _with_offset(dtype, offset)
    for name, logits in _extreme_logits():
        yield _with_logits(f"logits {name}", dtype, logits)


def _case(name: str, dtype: DType, attributes: Attributes, head_dim: int, batch: int = 3, logits: float = 1.5) -> Case:
    generator = np.random.default_rng(0)
    samples = attributes.samples
    value = generator.standard_normal((batch, attributes.tokens, attributes.heads * head_dim))
    scale = np.repeat([2.0, logits], [2 * samples, samples])
    sampling = generator.standard_normal((batch, attributes.tokens, 3 * samples)) * scale
    return Case(name, dtype, attributes, encode(value, dtype), encode(sampling, dtype))


def _borders(dtype: DType, size: Size) -> Case:
    """Positions on, next to and between pixels and edges in every combination, one per image of the batch.

    Exactly there for the token (0, 0), whose place is exactly zero; other tokens start from where they are.
    """
    height, width = size
    attributes = Attributes(1, 1, (size,))
    at = np.array([(x, y) for x in _marks(width, dtype) for y in _marks(height, dtype)])
    case = _case(f"borders of {height}x{width}", dtype, attributes, 8, batch=len(at))
    sampling = decode(case.sampling).copy()
    sampling[..., :2] = at[:, None]
    return Case(case.name, dtype, attributes, case.value, encode(sampling, dtype))


def _marks(count: int, dtype: DType) -> list[float]:
    """Places on an axis of ``count`` pixels; what lies on an edge or pixel also one step of the type to either side."""
    marks = {-2.0, -0.5, 0.0, 0.5, count - 1.5, count - 0.5, count + 1.0}
    for mark in {-1.0, 1.0, float(count - 1), float(count)} - {0.0}:
        bits = encode(np.full(3, mark), dtype)
        steps = bits.view(f"i{bits.itemsize}")
        steps += np.array([-1, 0, 1], steps.dtype)
        marks |= set(decode(bits).tolist())
    return sorted(marks)


def _with_offset(dtype: DType, offset: float) -> Case:
    """Some x, some y and some both at ``offset``: such samples add nothing, but keep their share of the softmax."""
    case = _case(f"offset {offset:+g}", dtype, Attributes(2, 3, LEVELS["two"]), 8)
    sampling = decode(case.sampling).copy()
    sampling[:, 0::3, 0] = sampling[:, 1::3, 1] = sampling[:, 2::3, 0] = sampling[:, 2::3, 1] = offset
    sampling[:, 4, : 2 * case.attributes.samples] = offset  # all of a token
    return Case(case.name, dtype, case.attributes, case.value, encode(sampling, dtype))


def _extreme_logits() -> Iterator[tuple[str, list[float]]]:
    """For the six samples of a head."""
    inf, nan = np.inf, np.nan
    yield "6e4 and -6e4", [6e4, -6e4, 6e4, 0, -6e4, 6e4]
    yield "all 6e4", [6e4] * 6
    yield "all -6e4", [-6e4] * 6
    yield "one -Inf", [-inf, 0, 1, 2, 3, 4]
    yield "one +Inf", [inf, 0, 1, 2, 3, 4]
    yield "all -Inf", [-inf] * 6
    yield "NaN first", [nan, 0, 1, 2, 3, 4]
    yield "NaN last", [0, 1, 2, 3, 4, nan]
    yield "NaN and -Inf", [-inf, -inf, -inf, nan, -inf, -inf]


def _with_logits(name: str, dtype: DType, logits: list[float]) -> Case:
    """In the second head of every second token; what is NaN there must stay there."""
    case = _case(name, dtype, Attributes(2, 3, LEVELS["two"]), 8)
    sampling = decode(case.sampling).copy()
    sampling[:, ::2, -6:] = logits
    return Case(name, dtype, case.attributes, case.value, encode(sampling, dtype))
