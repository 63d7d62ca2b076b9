"""The machine that stands in for a GPU finds the faults it is there to find, and rounds as a GPU does."""

import bisect
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from support.deform_attn_cases import decode
from support.emulator import KernelError, Sanitizer, program, run


def outcome(fault: str, seed: int = 2, sanitizer: Sanitizer = "none") -> str:
    return run([str(program("broken", sanitizer)), fault, str(seed)]).decode()


def expected() -> str:
    """Of broken.cu: the numbers of a block of 64 in reverse, summed over each warp of 32."""
    sums = np.arange(128).reshape(2, 64)[:, ::-1].reshape(2, 2, 32).sum(-1)
    return "".join(f"{x} " for x in sums.repeat(32))


@pytest.mark.parametrize("sanitizer", ["none", "address", "thread"])
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_sound_kernel_passes(seed: int, sanitizer: Sanitizer) -> None:
    assert outcome("none", seed, sanitizer) == expected()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("exit", "__syncthreads after 1 threads have left the kernel"),
        ("mask", "the lane is not in its own mask"),
        ("source", "reads from lane 1[0-9], which takes no part|reads from lane 2[0-9], which|reads from lane 3[01]"),
        ("deadlock", "deadlock; .*thread 3 waits at __syncthreads"),
        ("guard", "a store behind the 256 bytes of shared memory"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_errors_end_the_launch(fault: str, message: str, seed: int) -> None:
    with pytest.raises(KernelError, match=message):
        outcome(fault, seed)


@pytest.mark.parametrize("fault", ["barrier", "warp_barrier", "only_shuffle"])
def test_a_missing_barrier_changes_results(fault: str) -> None:
    assert any(outcome(fault, seed) != expected() for seed in range(4))


@pytest.mark.parametrize("fault", ["barrier", "warp_barrier", "only_shuffle"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_missing_barrier_is_a_race_in_any_order(fault: str, seed: int) -> None:
    with pytest.raises(KernelError, match="data race"):
        outcome(fault, seed, "thread")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("guard", "use-after-poison"),
        ("shared", "use-after-poison"),
        ("global", "heap-buffer-overflow"),
        ("misaligned", "misaligned address"),
    ],
)
def test_accesses_out_of_place(fault: str, message: str) -> None:
    with pytest.raises(KernelError, match=message):
        outcome(fault, sanitizer="address")


def as_float(bits: NDArray[np.uint16], name: str) -> NDArray[np.float32]:
    return bits.view(np.float16).astype(np.float32) if name == "half" else decode(bits)


@pytest.mark.parametrize("name", ["half", "bfloat16"])
def test_every_operation_rounds_once_to_the_nearest(name: str) -> None:
    """Against exact fractions: random numbers, of like sizes and of any, and sums next to a tie."""
    generator = np.random.default_rng(0)
    count = 3000
    operands = generator.integers(0, 1 << 16, (4 * count, 4), np.uint16)
    one = {"half": 0x3C00, "bfloat16": 0x3F80}[name]
    operands[:count] = one + generator.integers(-900, 900, (count, 4)).astype(np.uint16)
    operands[count : 2 * count, 2] = 1 + generator.integers(0, 8, count)  # a tiny c decides
    operands[count : 2 * count, :2] = one + generator.integers(0, 64, (count, 2))
    a, b, c = as_float(operands, name).T[:3]
    floats = generator.integers(0, 1 << 32, a.size, np.uint32).view(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        floats[: 2 * count] = a[: 2 * count] * (1 + generator.integers(0, 4, 2 * count) * np.float32(2.0**-12))
    records = np.zeros(a.size, [("abc", np.uint16, 4), ("f", np.float32)])
    records["abc"], records["f"] = operands, floats
    answer = np.frombuffer(
        run([str(program("arithmetic")), name], records.tobytes()), [("x", np.uint16, 4), ("w", "f4")]
    )
    np.testing.assert_array_equal(answer["w"], a)
    finite = np.isfinite([a, b, c, floats]).all(0)
    assert finite.sum() > 3 * count
    nearest = nearest_finite(name)
    fma, total, product, rounded = as_float(answer["x"], name).T
    for i in np.flatnonzero(finite):
        x, y, z = (Fraction(float(number[i])) for number in (a, b, c))
        assert fma[i] == nearest(x * y + z)
        assert total[i] == nearest(x + y)
        assert product[i] == nearest(x * y)
        assert rounded[i] == nearest(Fraction(float(floats[i])))


def nearest_finite(name: str) -> Callable[[Fraction], float]:
    """A function from a fraction to the nearest number of the type, ties to even, infinity beyond the last step."""
    positive = as_float(np.arange(0x7F80 if name == "bfloat16" else 0x7C00, dtype=np.uint16), name).tolist()
    beyond = 2 * Fraction(positive[-1]) - Fraction(positive[-2])

    def nearest(x: Fraction) -> float:
        sign, x = (-1 if x < 0 else 1), abs(x)
        above = bisect.bisect_left(positive, x)
        below = max(above - 1, 0)
        steps = [Fraction(positive[i]) if i < len(positive) else beyond for i in (below, above)]
        distances = [abs(x - step) for step in steps]
        even = below if below % 2 == 0 else above
        index = even if distances[0] == distances[1] else (below if distances[0] < distances[1] else above)
        return sign * (positive[index] if index < len(positive) else np.inf)

    return nearest
