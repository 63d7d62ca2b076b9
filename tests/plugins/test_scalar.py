"""The conversions of plugins/include/proscale/scalar.h as they are without CUDA, against numpy's and PyTorch's."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proscale_deploy.core import machine

INCLUDE = Path(__file__).parents[2] / "plugins" / "include"
SHIM = """
#include "proscale/scalar.h"
using namespace proscale;
template <typename T>
void widen(const uint16_t* from, float* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = toFloat(T{from[i]});
}
template <typename T>
void narrow(const float* from, uint16_t* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = fromFloat<T>(from[i]).bits;
}
extern "C" void half_to_float(const uint16_t* from, float* to, int64_t count) { widen<half>(from, to, count); }
extern "C" void bfloat16_to_float(const uint16_t* from, float* to, int64_t count) { widen<bfloat16>(from, to, count); }
extern "C" void float_to_half(const float* from, uint16_t* to, int64_t count) { narrow<half>(from, to, count); }
extern "C" void float_to_bfloat16(const float* from, uint16_t* to, int64_t count) { narrow<bfloat16>(from, to, count); }
"""
ALL = np.arange(2**16, dtype=np.uint16)
TORCH_TYPES = {"half": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module", params=["-O0", "-O3 -fno-trapping-math"])
def shim(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Optimised as the library is, too: the loops are vectorised then."""
    compiler = machine.cxx_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler: apt install g++")
    folder = tmp_path_factory.mktemp("scalar")
    source, library = folder / "shim.cpp", folder / "shim.so"
    source.write_text(SHIM)
    command = f"{compiler.path} -std=c++17 {request.param} -Wall -Wextra -Werror -shared -fPIC -I{INCLUDE}"
    subprocess.run([*command.split(), "-o", str(library), str(source)], check=True)
    return ctypes.CDLL(str(library))


def convert(shim: ctypes.CDLL, name: str, array: NDArray, result: type) -> NDArray:
    output = np.empty(array.shape, result)
    pointers = ctypes.c_void_p(array.ctypes.data), ctypes.c_void_p(output.ctypes.data)
    shim[name](*pointers, ctypes.c_int64(array.size))
    return output


def expected_float(type_name: str) -> NDArray:
    return torch.tensor(ALL.view(np.int16)).view(TORCH_TYPES[type_name]).float().numpy()


def assert_same(found: NDArray, expected: NDArray, isnan: NDArray) -> None:
    """Bit for bit, zeros included; which NaN is for nobody to say."""
    bits = f"u{found.itemsize}"
    np.testing.assert_array_equal(found.view(bits)[~isnan], expected.view(bits)[~isnan])


@pytest.mark.parametrize("type_name", TORCH_TYPES)
def test_every_number_becomes_the_same_float(shim: ctypes.CDLL, type_name: str) -> None:
    found, expected = convert(shim, f"{type_name}_to_float", ALL, np.float32), expected_float(type_name)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert_same(found, expected, np.isnan(expected))
    if type_name == "half":
        np.testing.assert_array_equal(found, ALL.view(np.float16).astype(np.float32))


@pytest.mark.parametrize("type_name", TORCH_TYPES)
def test_floats_are_rounded_to_the_nearest_number_and_ties_to_even(shim: ctypes.CDLL, type_name: str) -> None:
    floats = np.concatenate([_around_all_numbers(type_name), _random_floats()])
    found = convert(shim, f"float_to_{type_name}", floats, np.uint16)
    expected = torch.tensor(floats).to(TORCH_TYPES[type_name]).view(torch.int16).numpy().view(np.uint16)
    again = convert(shim, f"{type_name}_to_float", found, np.float32)
    np.testing.assert_array_equal(np.isnan(again), np.isnan(floats))
    assert_same(found, expected, np.isnan(floats))
    if type_name == "half":
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(again, floats.astype(np.float16).astype(np.float32))


def _around_all_numbers(type_name: str) -> NDArray:
    """Every number of the type and, to the next one, the float half-way; of each its two neighbours too."""
    numbers = np.sort(expected_float(type_name)[np.isfinite(expected_float(type_name))])
    ties = ((numbers[1:].astype(np.float64) + numbers[:-1]) / 2).astype(np.float32)  # exact: one bit more
    beyond = np.float64(numbers[-1]) + (np.float64(numbers[-1]) - numbers[-2]) / 2  # the first that becomes Inf
    ends = np.array([-beyond, beyond, -np.inf, np.inf, np.nan, -0.0]).astype(np.float32)
    floats = np.concatenate([numbers, ties, ends])
    return np.concatenate([floats, np.nextafter(floats, np.float32(np.inf)), np.nextafter(floats, np.float32(-np.inf))])


def _random_floats() -> NDArray:
    """Of all exponents, NaN among them."""
    return np.random.default_rng(0).integers(0, 2**32, 10**6, np.uint32).view(np.float32)
