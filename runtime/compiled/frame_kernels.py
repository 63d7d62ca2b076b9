"""The compiled preprocessing: the C functions of plugins/include/proscale/frame_api.h, called through ctypes.

What they compute is :func:`proscale_deploy.runtime.preprocess.preprocess`, to the last bit: Pillow's bilinear filter in
its 8-bit fixed-point form, whose tables are made here.
"""

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError, PluginError
from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.types import InputSpec, Placement

__all__ = ["ResizePlan", "Taps", "preprocess_device", "preprocess_host", "resize_plan"]

_WEIGHT_BITS = 22
"""A weight of 1 is 2^22: 8 bits of the pixel and two to spare make 32."""
_GROUP = 4
"""The kernels read so many weights at a time."""

_DTYPES = {np.dtype(np.float32): DType.FLOAT, np.dtype(np.float16): DType.HALF}


@dataclass(frozen=True)
class Taps:
    """One axis of a resize: output i is the sum of ``weights[i, k] * input[first[i] + k]`` for k < ``count``."""

    first: NDArray[np.int32]
    """(n,)"""
    weights: NDArray[np.int32]
    """(n, ``count`` rounded up to a multiple of 4), in units of 2^-22; 0 from ``count`` on."""
    count: int


@dataclass(frozen=True)
class ResizePlan:
    """The tables of one placement."""

    placement: Placement
    rows: Taps
    columns: Taps
    tables: NDArray[np.int32]
    """All four arrays, one after the other: what a device needs."""


@lru_cache(maxsize=8)
def resize_plan(placement: Placement) -> ResizePlan:
    """The tables of one placement. Kept for the next frame: a video has one size."""
    rows, columns = (
        _taps(size, new_size) for size, new_size in zip(placement.source_hw, placement.resized_hw, strict=True)
    )
    # Weights first: their rows stay aligned to 16 bytes.
    parts = columns.weights, rows.weights, columns.first, rows.first
    tables = np.concatenate([part.ravel() for part in parts])
    return ResizePlan(placement, rows, columns, tables)


def preprocess_device(
    library: Library,
    plan: ResizePlan,
    spec: InputSpec,
    dtype: DType,
    *,
    frame: int,
    pitch: int,
    tables: int,
    output: int,
    stream: int,
) -> None:
    """Queue the preprocessing of one frame on a CUDA stream; allocates nothing and does not wait.

    Args:
        library: libproscale_plugin.so.
        plan: of the frame's placement in the network's input.
        spec: what the network takes.
        dtype: of the network's input, FLOAT or HALF.
        frame: device address of the frame, (H, W, 3) bytes in BGR order.
        pitch: bytes from one of its rows to the next; 3 * W where they are dense.
        tables: device address of a copy of ``plan.tables``, aligned to 16 bytes.
        output: device address of where to write, (3, height, width) of ``dtype``: a row of the input tensor.
        stream: a cudaStream_t.

    Raises:
        PluginError: the library has no such kernel, or the launch failed; the message holds the number of the CUDA
            error.
    """
    function = library.function("proscale_preprocess_cuda", [ctypes.POINTER(_Preprocess), ctypes.c_void_p])
    if status := function(_task(plan, spec, dtype, frame, pitch, tables, output), stream):
        raise PluginError(
            f"{library.path}: CUDA error {status} when launching the preprocessing of {plan.placement}; 1 says "
            "that an argument is wrong, 209 that the library was not built for this GPU: proscale-deploy plugin build"
        )


def preprocess_host(
    library: Library,
    plan: ResizePlan,
    spec: InputSpec,
    frame: NDArray[np.uint8],
    out: NDArray[np.float32] | NDArray[np.float16],
) -> None:
    """The same on the CPU, on all threads that OpenMP gives.

    Args:
        library: libproscale_host.so.
        plan: of the frame's placement in the network's input.
        spec: what the network takes.
        frame: (H, W, 3) uint8, BGR. Rows may be apart; what is laid out otherwise is copied first.
        out: where to write, (3, height, width) float32 or float16, dense: a row of a batch. Every element is written.

    Raises:
        InputError: an array is of another shape, type or layout.
        PluginError: the library has no such function.
    """
    height, width = plan.placement.source_hw
    if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
        raise InputError(f"expected a frame {(height, width, 3)} uint8, found {frame.shape} {frame.dtype}")
    shape, dtype = (3, *plan.placement.padded_hw), _DTYPES.get(out.dtype)
    if out.shape != shape or dtype is None or not out.flags.carray:
        raise InputError(f"expected a dense, writable out {shape} float32 or float16, found {out.shape} {out.dtype}")
    if frame.strides[1:] != (3, 1) or frame.strides[0] < 3 * width:
        frame = np.ascontiguousarray(frame)
    pitch = 3 * width if frame.flags.c_contiguous else frame.strides[0]
    function = library.function("proscale_preprocess_host", [ctypes.POINTER(_Preprocess)])
    task = _task(plan, spec, dtype, frame.ctypes.data, pitch, plan.tables.ctypes.data, out.ctypes.data)
    if status := function(task):
        raise PluginError(f"{library.path}: the preprocessing of {plan.placement} returned {status}")


class _Taps(ctypes.Structure):
    _fields_ = (
        ("first", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("count", ctypes.c_int32),
        ("stride", ctypes.c_int32),
    )


class _Preprocess(ctypes.Structure):
    _fields_ = (
        ("frame", ctypes.c_void_p),
        ("pitch", ctypes.c_int64),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("resized_height", ctypes.c_int32),
        ("resized_width", ctypes.c_int32),
        ("output_height", ctypes.c_int32),
        ("output_width", ctypes.c_int32),
        ("type", ctypes.c_int32),
        ("rgb", ctypes.c_int32),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
        ("rows", _Taps),
        ("columns", _Taps),
        ("output", ctypes.c_void_p),
    )


def _task(
    plan: ResizePlan, spec: InputSpec, dtype: DType, frame: int, pitch: int, tables: int, output: int
) -> _Preprocess:
    columns, rows = plan.columns, plan.rows
    addresses = [tables]
    for part in (columns.weights, rows.weights, columns.first):
        addresses.append(addresses[-1] + part.nbytes)
    return _Preprocess(
        frame,
        pitch,
        *plan.placement.source_hw,
        *plan.placement.resized_hw,
        *plan.placement.padded_hw,
        dtype,
        spec.channels == "RGB",
        (ctypes.c_float * 3)(*spec.mean),
        (ctypes.c_float * 3)(*spec.std),
        _Taps(addresses[3], addresses[1], rows.count, rows.weights.shape[1]),
        _Taps(addresses[2], addresses[0], columns.count, columns.weights.shape[1]),
        output,
    )


def _taps(size: int, new_size: int) -> Taps:
    """Pillow's bilinear filter (``precompute_coeffs`` and ``normalize_coeffs_8bpc`` in its Resample.c).

    A triangle, two outputs wide, or two inputs wide where the image grows. The order of operations is Pillow's, because
    the weights are rounded in the end. An axis that does not change comes out as one weight of 1 per output.
    """
    scale = size / new_size
    support = max(scale, 1.0)
    centre = (np.arange(new_size) + 0.5) * scale
    start = np.maximum((centre - support + 0.5).astype(np.int64), 0)[:, None]
    end = np.minimum((centre + support + 0.5).astype(np.int64), size)[:, None]
    index = start + np.arange((end - start).max())
    weight = np.maximum(1 - np.abs((index - centre[:, None] + 0.5) * (1 / support)), 0)
    weight[index >= end] = 0
    weight /= np.cumsum(weight, axis=1)[:, -1:]  # adds from left to right; numpy's sum does not
    fixed = (0.5 + weight * (1 << _WEIGHT_BITS)).astype(np.int32)

    # All outputs get the same number of taps. Where these would reach beyond the input, they begin earlier.
    used = fixed > 0
    begin, length = used.argmax(axis=1), fixed.shape[1] - used[:, ::-1].argmax(axis=1) - used.argmax(axis=1)
    count = int(length.max())
    first = np.minimum(start[:, 0] + begin, size - count)
    weights = np.zeros((new_size, -(-count // _GROUP) * _GROUP), np.int32)
    output, tap = np.nonzero(used)
    weights[output, index[output, tap] - first[output]] = fixed[output, tap]
    return Taps(first.astype(np.int32), weights, count)
