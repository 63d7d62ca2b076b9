"""The source of the CUDA kernels, run on the CPU: against the definition in float64, again in other orders of threads,
and under sanitizers."""

import dataclasses
import functools

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy.core.native import DType, Kernel
from proscale_deploy.core.operator import Attributes
from proscale_deploy.core.types import Size
from support.deform_attn import deform_attn_exact
from support.deform_attn_cases import LEVELS, Case, cases, decode, encode
from support.emulator import INVALID_VALUE, Device, Sanitizer, launch
from support.tiled_kernel import HALVES, is_tileable, widened

PUBLISHED = (((5, 7),), ((5, 7), (9, 14)), ((3, 5), (5, 9), (9, 14)))
"""Levels for the specialised kernels, of one to three levels."""


def random_case(
    dtype: DType, heads: int, head_dim: int, points: int, levels: tuple[Size, ...], batch: int = 1, seed: int = 0
) -> Case:
    attributes = Attributes(heads, points, levels)
    generator = np.random.default_rng(seed)
    value = generator.standard_normal((batch, attributes.tokens, heads * head_dim))
    offsets = 2 * generator.standard_normal((batch, attributes.tokens, 2 * attributes.samples))
    offsets *= np.where(generator.random(offsets.shape) < 0.05, 15, 1)
    logits = 1.5 * generator.standard_normal((batch, attributes.tokens, attributes.samples))
    name = f"{dtype.name} {heads} heads of {head_dim}, {points} points, {levels}"
    return Case(name, dtype, attributes, encode(value, dtype), encode(np.concatenate([offsets, logits], -1), dtype))


def succeeds(case: Case, kernel: Kernel, device: Device | None = None) -> NDArray:
    status, output = launch(case, kernel, device or Device())
    assert status == 0
    return output


@functools.cache
def protocol_output(name: str, kernel: Kernel) -> tuple[int, NDArray]:
    return launch(PROTOCOL[name], kernel)


PROTOCOL = {f"{dtype.name} {case.name}": case for dtype in DType for case in cases(dtype)}
TILEABLE = {name: wide for name, case in PROTOCOL.items() if is_tileable(wide := widened(case))}


@pytest.mark.parametrize("name", PROTOCOL)
def test_the_plain_kernel_is_as_exact_as_single_precision_allows(name: str) -> None:
    status, output = protocol_output(name, Kernel.PLAIN)
    assert status == 0
    PROTOCOL[name].check(output)


@pytest.mark.parametrize("name", TILEABLE)
def test_the_tiled_kernel_meets_its_bound(name: str) -> None:
    TILEABLE[name].check(succeeds(TILEABLE[name], Kernel.TILED), halves=HALVES[TILEABLE[name].dtype])


@pytest.mark.parametrize("name", PROTOCOL)
def test_the_fast_kernel_runs_where_its_conditions_hold(name: str) -> None:
    status, output = protocol_output(name, Kernel.TILED)
    if is_tileable(PROTOCOL[name]):
        assert status == 0
    else:
        assert status == INVALID_VALUE
        assert np.isnan(decode(output)).all()  # untouched
        _, output = protocol_output(name, Kernel.PLAIN)
    np.testing.assert_array_equal(succeeds(PROTOCOL[name], Kernel.AUTO), output)


@pytest.mark.parametrize("levels", PUBLISHED, ids=len)
@pytest.mark.parametrize("dtype", DType)
def test_published_shapes(dtype: DType, levels: tuple[Size, ...]) -> None:
    case = random_case(dtype, 8, 32, 4, levels, batch=2)
    output = succeeds(case, Kernel.TILED)
    case.check(output, halves=HALVES[dtype])
    exact = deform_attn_exact(decode(case.value), decode(case.sampling), case.attributes).output
    rms = np.sqrt(np.square(decode(output) - exact).mean())
    assert rms <= {DType.FLOAT: 1e-6, DType.HALF: 3e-4, DType.BFLOAT16: 1e-3}[dtype]


@pytest.mark.parametrize("points", range(1, 9))
@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize("dtype", DType)
def test_any_number_of_points_and_levels(dtype: DType, size: int, points: int) -> None:
    """Up to 64 samples a head, for which a block has few threads; maps of any proportions."""
    sizes = ((2, 2), (3, 2), (2, 7), (5, 4), (9, 2), (3, 3), (6, 5), (2, 11))
    levels = sizes[: 8 - points] if points % 2 else sizes[-points:]  # odd and even numbers of samples
    case = random_case(dtype, 8, size, points, levels)
    case.check(succeeds(case, Kernel.TILED), halves=HALVES[dtype])


def repeatable_cases() -> list[Case]:
    return [
        *(random_case(dtype, 8, 32, 4, PUBLISHED[2]) for dtype in DType),
        random_case(DType.FLOAT, 4, 8, 8, LEVELS["three"][:1] * 8),
        random_case(DType.HALF, 16, 8, 3, ((2, 2), (9, 13), (12, 2))),
        random_case(DType.BFLOAT16, 3, 64, 2, ((7, 9), (3, 5))),
    ]


@pytest.mark.parametrize("case", repeatable_cases(), ids=lambda case: case.name)
def test_the_same_bits_for_any_order_of_threads_and_any_tiles(case: Case) -> None:
    expected = succeeds(case, Kernel.TILED)
    for device in (Device(seed=0), Device(seed=1, processors=1000), Device(seed=3), Device(seed=4, processors=8)):
        np.testing.assert_array_equal(succeeds(case, Kernel.TILED, device), expected)


@pytest.mark.parametrize("kernel", [Kernel.PLAIN, Kernel.TILED])
@pytest.mark.parametrize("dtype", DType)
def test_images_of_a_batch_do_not_touch_each_other(dtype: DType, kernel: Kernel) -> None:
    case = random_case(dtype, 8, 32, 4, PUBLISHED[1], batch=3)
    together = succeeds(case, kernel)
    for image in range(3):
        alone = dataclasses.replace(
            case, value=case.value[image : image + 1], sampling=case.sampling[image : image + 1]
        )
        np.testing.assert_array_equal(succeeds(alone, kernel)[0], together[image])


@pytest.mark.parametrize("elements", [1, 2])
@pytest.mark.parametrize("tensor", ["value", "sampling", "output"])
@pytest.mark.parametrize("dtype", DType)
def test_tensors_aligned_to_their_elements_only(dtype: DType, tensor: str, elements: int) -> None:
    case = random_case(dtype, 8, 32, 4, PUBLISHED[0])
    step = elements * case.value.itemsize
    offsets = (step * (tensor == "value"), step * (tensor == "sampling"), step * (tensor == "output"))
    device = Device(offsets=offsets, sanitizer="address")  # reports loads that are not aligned
    status, _ = launch(case, Kernel.TILED, device)
    holds = tensor == "sampling" and elements == 2  # an offset's x and y are loaded as one
    assert status == (0 if holds else INVALID_VALUE)
    expected = succeeds(case, Kernel.TILED if holds else Kernel.PLAIN)
    np.testing.assert_array_equal(succeeds(case, Kernel.AUTO, device), expected)


@pytest.mark.parametrize("kernel", [Kernel.PLAIN, Kernel.TILED])
def test_sums_in_half_do_not_overflow(kernel: Kernel) -> None:
    """Two samples of values near the largest, 65504, are added up before they are widened."""
    case = random_case(DType.HALF, 8, 32, 4, PUBLISHED[1])
    large = dataclasses.replace(case, value=np.full_like(case.value, 60000))
    assert np.isfinite(succeeds(large, kernel)).all()


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("kernel", [Kernel.PLAIN, Kernel.TILED])
@pytest.mark.parametrize("case", repeatable_cases(), ids=lambda case: case.name)
def test_sanitizers_find_nothing(case: Case, kernel: Kernel, sanitizer: Sanitizer) -> None:
    output = succeeds(case, kernel, Device(sanitizer=sanitizer))
    np.testing.assert_array_equal(output, succeeds(case, kernel))


@pytest.mark.parametrize("name", [name for name in TILEABLE if "offset" in name or "logits" in name or "two" in name])
def test_no_input_leads_out_of_bounds(name: str) -> None:
    case = TILEABLE[name]
    np.testing.assert_array_equal(
        succeeds(case, Kernel.TILED, Device(sanitizer="address")), succeeds(case, Kernel.TILED)
    )


@pytest.mark.parametrize("kernel", Kernel)
@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_nothing_is_refused(batch: int, kernel: Kernel) -> None:
    case = random_case(DType.HALF, 8, 32, 4, PUBLISHED[0])
    empty = dataclasses.replace(case, value=case.value[:0], sampling=case.sampling[:0])
    assert launch(empty, kernel)[0] == INVALID_VALUE


@pytest.mark.parametrize("levels", [((2, 2**20), (2**20, 2)), ((2, 6_000_000),)], ids=["tiles", "columns"])
def test_a_cut_beyond_the_fast_kernels_integers_is_refused(levels: tuple[Size, ...]) -> None:
    """Before anything is read: no tensor of that size is needed."""
    value, sampling = (np.zeros((1, 1, width), np.float16) for width in (64, 3 * 8 * len(levels)))
    assert launch(Case("", DType.HALF, Attributes(8, 1, levels), value, sampling), Kernel.TILED)[0] == INVALID_VALUE
