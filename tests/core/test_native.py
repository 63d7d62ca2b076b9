"""What reaches the C functions, by a stand-in that is compiled with their header, and what is refused before."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from proscale_deploy import __version__
from proscale_deploy.core.errors import InputError, PluginError
from proscale_deploy.core.native import DType, Kernel, Library
from proscale_deploy.core.operator import Attributes

INCLUDE = Path(__file__).parents[2] / "plugins" / "include"
STAND_IN = """
#include <string.h>

#include "proscale/c_api.h"

/* What the last call was given. */
struct ProscaleDeformAttn last_op;
int64_t last_arguments[6];

static void keep(const struct ProscaleDeformAttn* op, int32_t batch, const void* value, const void* sampling,
                 const void* output) {
    last_op = *op;
    last_arguments[0] = batch;
    last_arguments[1] = (int64_t)value;
    last_arguments[2] = (int64_t)sampling;
    last_arguments[3] = (int64_t)output;
}

int proscale_deform_attn_host(const struct ProscaleDeformAttn* op, int32_t batch, const void* value,
                              const void* sampling, void* output) {
    const int64_t tokens = (int64_t)op->sizes[0] * op->sizes[1];
    keep(op, batch, value, sampling, output);
    memcpy(output, value, batch * tokens * op->heads * op->head_dim * (op->type == PROSCALE_FLOAT ? 4 : 2));
    return op->points == 7;
}

#if !defined(HOST_ONLY)
int proscale_deform_attn_cuda(const struct ProscaleDeformAttn* op, int32_t batch, const void* value,
                              const void* sampling, void* output, int32_t kernel, void* stream) {
    keep(op, batch, value, sampling, output);
    last_arguments[4] = kernel;
    last_arguments[5] = (int64_t)stream;
    return op->points == 7 ? 209 : 0;
}
#endif

int32_t proscale_deform_attn_problem(const struct ProscaleDeformAttn* op, char* text, int32_t capacity) {
    const char* message = op->levels > 8 ? "levels: too many" : "";
    strncpy(text, message, capacity);
    return strlen(message);
}

const char* proscale_version(void) { return VERSION; }
"""


class Operator(ctypes.Structure):
    _fields_ = (("head", ctypes.c_int32 * 5), ("sizes", ctypes.c_int32 * 16))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


def compile_stand_in(folder: Path, name: str, *options: str, version: str = __version__) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("needs a C compiler: apt install gcc")
    source, library = folder / "stand_in.c", folder / name
    source.write_text(STAND_IN)
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-Wno-stringop-truncation", "-shared", "-fPIC", f"-I{INCLUDE}"]
    subprocess.run([*command, f'-DVERSION="{version}"', *options, "-o", str(library), str(source)], check=True)
    return library


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return compile_stand_in(folder, "libstand_in.so")


@pytest.fixture(scope="module")
def library(path: Path) -> Library:
    return Library(path)


def last_call(path: Path) -> tuple[list[int], list[int], list[int]]:
    stand_in = ctypes.CDLL(str(path))
    op = Operator.in_dll(stand_in, "last_op")
    return list(op.head), list(op.sizes), list((ctypes.c_int64 * 6).in_dll(stand_in, "last_arguments"))


ATTRIBUTES = Attributes(2, 3, ((2, 3), (4, 5)))


def arrays(dtype: type = np.float32, batch: int = 2, head_dim: int = 4) -> tuple[NDArray, NDArray]:
    shape = batch, ATTRIBUTES.tokens
    value = np.arange(np.prod(shape) * 2 * head_dim).reshape(*shape, -1).astype(dtype)
    return value, np.zeros((*shape, 3 * ATTRIBUTES.samples), dtype)


@pytest.mark.parametrize(("dtype", "number"), [(np.float32, 0), (np.float16, 1), (np.uint16, 2)])
def test_the_host_function_gets_what_its_header_says(library: Library, path: Path, dtype: type, number: int) -> None:
    value, sampling = arrays(dtype)
    output = np.zeros_like(value)
    assert library.host(ATTRIBUTES, value, sampling, output) is output
    head, sizes, arguments = last_call(path)
    assert head == [number, 2, 4, 3, 2]
    assert sizes == [2, 3, 4, 5] + [0] * 12
    assert arguments[:4] == [2, value.ctypes.data, sampling.ctypes.data, output.ctypes.data]
    np.testing.assert_array_equal(output[0, 0], value[0, 0])


def test_an_output_is_made_and_other_layouts_are_copied(library: Library) -> None:
    value, sampling = arrays()
    turned = np.asfortranarray(value)
    output = library.host(ATTRIBUTES, turned, sampling[:, :, ::-1])
    assert output.flags.c_contiguous
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output[0, 0], value[0, 0])


def test_the_device_function_gets_what_its_header_says(library: Library, path: Path) -> None:
    stream = 2**47 + 5  # a pointer, not an int
    library.device(ATTRIBUTES, DType.HALF, 32, 8, 2**40, 2**41, 2**42, kernel=Kernel.TILED, stream=stream)
    head, sizes, arguments = last_call(path)
    assert head == [1, 2, 32, 3, 2]
    assert sizes == [2, 3, 4, 5] + [0] * 12
    assert arguments == [8, 2**40, 2**41, 2**42, 2, stream]
    library.device(ATTRIBUTES, DType.BFLOAT16, 32, 8, 0, 0, 0)
    assert last_call(path)[2][4:] == [0, 0]


VALUE, SAMPLING = arrays()


@pytest.mark.parametrize(
    ("value", "sampling", "output", "message"),
    [
        (VALUE.astype(np.float64), SAMPLING, None, "float32, float16 or uint16.*found float64"),
        (VALUE.astype(">f4"), SAMPLING, None, "found >f4"),
        (VALUE[0], SAMPLING[0], None, r"value \(batch, 26, a multiple of 2\), found \(26, 8\)"),
        (VALUE[:0], SAMPLING[:0], None, r"found \(0, 26, 8\)"),
        (VALUE[:, :25], SAMPLING[:, :25], None, r"found \(2, 25, 8\)"),
        (VALUE[..., :7], SAMPLING, None, r"found \(2, 26, 7\)"),
        (VALUE, SAMPLING[:1], None, r"sampling \(2, 26, 36\) float32, found \(1, 26, 36\)"),
        (VALUE, SAMPLING[..., :-1], None, r"found \(2, 26, 35\)"),
        (VALUE, SAMPLING.astype(np.float16), None, r"found \(2, 26, 36\) float16"),
        (VALUE, SAMPLING, np.empty_like(VALUE[:1]), r"output \(2, 26, 8\) float32, found \(1, 26, 8\)"),
        (VALUE, SAMPLING, np.empty_like(VALUE, np.float16), "float16"),
        (VALUE, SAMPLING, np.asfortranarray(VALUE), "dense"),
        (VALUE, SAMPLING, np.broadcast_to(np.float32(0), VALUE.shape), "writable"),
    ],
)
def test_wrong_arrays(library: Library, value: NDArray, sampling: NDArray, output: NDArray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        library.host(ATTRIBUTES, value, sampling, output)


def test_what_the_library_refuses(library: Library) -> None:
    nine = Attributes(1, 1, ((1, 1),) * 20)
    with pytest.raises(PluginError, match=r"not supported: levels: too many$"):
        library.host(nine, np.zeros((1, 20, 1), np.float32), np.zeros((1, 20, 60), np.float32))
    seven = Attributes(1, 7, ((1, 1),))
    with pytest.raises(PluginError, match="host kernel returned 1"):
        library.host(seven, np.zeros((1, 1, 1), np.float32), np.zeros((1, 1, 21), np.float32))
    with pytest.raises(PluginError, match="CUDA error 209 when launching kernel PLAIN for a batch of 3"):
        library.device(seven, DType.FLOAT, 8, 3, 0, 0, 0, kernel=Kernel.PLAIN)


def test_a_library_without_the_function(folder: Path) -> None:
    library = Library(compile_stand_in(folder, "libhost_only.so", "-DHOST_ONLY"))
    assert library.host(ATTRIBUTES, *arrays()).shape == VALUE.shape
    with pytest.raises(
        PluginError, match=r"no function proscale_deform_attn_cuda; libproscale_host\.so is for the CPU"
    ):
        library.device(ATTRIBUTES, DType.FLOAT, 8, 1, 0, 0, 0)


def test_libraries_that_are_none(folder: Path) -> None:
    with pytest.raises(PluginError, match="there is no such library; build it: proscale-deploy plugin build"):
        Library(folder / "missing.so")
    (folder / "text.so").write_text("no library")
    with pytest.raises(PluginError, match="does not load"):
        Library(folder / "text.so")
    with pytest.raises(PluginError, match=rf"built from version 0.0.0, expected {__version__}; build it again"):
        Library(compile_stand_in(folder, "libold.so", version="0.0.0"))
    (folder / "other.c").write_text("int other;")
    subprocess.run(
        [os.environ.get("CC", "cc"), "-shared", "-o", folder / "libother.so", folder / "other.c"], check=True
    )
    with pytest.raises(PluginError, match="no function proscale_version"):
        Library(folder / "libother.so")
