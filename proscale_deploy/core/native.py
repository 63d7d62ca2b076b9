"""The compiled operator: the C functions of plugins/include/proscale/c_api.h, called through ctypes.

Both libraries are opened alike: libproscale_host.so computes on numpy arrays, libproscale_plugin.so on device memory.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from proscale_deploy import __version__
from proscale_deploy.core.errors import InputError, PluginError
from proscale_deploy.core.operator import Attributes

__all__ = ["DType", "Kernel", "Library"]

_Element = TypeVar("_Element", bound=np.generic)


class DType(enum.IntEnum):
    """Element type of value, sampling and output; in numpy float32, float16 and, for the bits of bfloat16, uint16."""

    FLOAT = 0
    HALF = 1
    BFLOAT16 = 2


class Kernel(enum.IntEnum):
    """Which CUDA kernel runs."""

    AUTO = 0
    """The tiled one where its conditions hold, else the plain one."""
    PLAIN = 1
    TILED = 2


_NUMPY_TYPES = {
    DType.FLOAT: np.dtype(np.float32),
    DType.HALF: np.dtype(np.float16),
    DType.BFLOAT16: np.dtype(np.uint16),
}


class _DeformAttn(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("head_dim", ctypes.c_int32),
        ("points", ctypes.c_int32),
        ("levels", ctypes.c_int32),
        ("sizes", ctypes.c_int32 * 16),
    )


_ARGUMENTS = [ctypes.POINTER(_DeformAttn), ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]


class Library:
    """A compiled library, loaded and of this version. It stays loaded as long as the process lives."""

    def __init__(self, path: Path) -> None:
        """Load the library.

        Raises:
            PluginError: it is missing, does not load, or was built from another version of the project.
        """
        self.path = path
        if not path.is_file():
            raise PluginError(f"{path}: there is no such library; build it: proscale-deploy plugin build")
        try:
            self._library = ctypes.CDLL(str(path.resolve()))
        except OSError as error:
            raise PluginError(
                f"{path}: does not load ({error}); build it again: proscale-deploy plugin build"
            ) from error
        version = self.function("proscale_version", [], ctypes.c_char_p)().decode()
        if version != __version__:
            raise PluginError(
                f"{path}: built from version {version}, expected {__version__}; build it again: "
                "proscale-deploy plugin build"
            )

    @property
    def is_plugin(self) -> bool:
        """Whether TensorRT finds a plugin in it."""
        return hasattr(self._library, "getCreators")

    def function(self, name: str, arguments: list[Any], result: Any = ctypes.c_int32) -> Callable[..., Any]:
        """A C function of the library; ``arguments`` and ``result`` are its ctypes types.

        Raises:
            PluginError: the library has no such function.
        """
        try:
            function = self._library[name]
        except AttributeError as error:
            raise PluginError(
                f"{self.path}: it has no function {name}; libproscale_host.so is for the CPU, libproscale_plugin.so "
                "for the GPU: proscale-deploy plugin build makes both"
            ) from error
        function.argtypes, function.restype = arguments, result
        return function

    def host(
        self,
        attributes: Attributes,
        value: NDArray[_Element],
        sampling: NDArray[_Element],
        output: NDArray[_Element] | None = None,
    ) -> NDArray[_Element]:
        """Run the operator on the CPU, on all threads that OpenMP gives.

        ``value`` (B, S, C) and ``sampling`` (B, S, heads x levels x points x 3) as in
        :mod:`proscale_deploy.core.operator`, both of one type: float32, float16, or uint16 that holds the bits of
        bfloat16. ``value`` must be finite. Returns (B, S, C) of that type, written into ``output`` if it is given.

        Raises:
            InputError: an array is of another shape, type or layout.
            PluginError: the attributes are beyond what the library supports, or it has no host kernel.
        """
        function = self.function("proscale_deform_attn_host", _ARGUMENTS)
        dtype = _dtype(value)
        tokens, width = attributes.tokens, 3 * attributes.samples
        if value.ndim != 3 or not value.shape[0] or value.shape[1] != tokens or value.shape[2] % attributes.heads:
            raise InputError(f"expected value (batch, {tokens}, a multiple of {attributes.heads}), found {value.shape}")
        if sampling.shape != (len(value), tokens, width) or sampling.dtype != value.dtype:
            raise InputError(
                f"expected sampling {(len(value), tokens, width)} {value.dtype}, "
                f"found {sampling.shape} {sampling.dtype}"
            )
        if output is None:
            output = np.empty_like(value, order="C", subok=False)
        elif output.shape != value.shape or output.dtype != value.dtype or not output.flags.carray:
            raise InputError(
                f"expected a dense, writable output {value.shape} {value.dtype}, found {output.shape} {output.dtype}"
            )
        value, sampling = np.require(value, requirements=["C", "A"]), np.require(sampling, requirements=["C", "A"])
        op = self._operator(attributes, dtype, value.shape[2] // attributes.heads)
        pointers = value.ctypes.data, sampling.ctypes.data, output.ctypes.data
        if status := function(op, len(value), *pointers):
            raise PluginError(f"{self.path}: the host kernel returned {status}")
        return output

    def device(
        self,
        attributes: Attributes,
        dtype: DType,
        head_dim: int,
        batch: int,
        value: int,
        sampling: int,
        output: int,
        *,
        kernel: Kernel = Kernel.AUTO,
        stream: int = 0,
    ) -> None:
        """Queue the operator on a CUDA stream; allocates nothing and does not wait.

        ``value``, ``sampling`` and ``output`` are addresses of dense device tensors, ``stream`` is a cudaStream_t.

        Raises:
            PluginError: the attributes are beyond what the library supports, it has no CUDA kernel, or the launch
                failed; the message holds the number of the CUDA error.
        """
        function = self.function("proscale_deform_attn_cuda", [*_ARGUMENTS, ctypes.c_int32, ctypes.c_void_p])
        op = self._operator(attributes, dtype, head_dim)
        if status := function(op, batch, value, sampling, output, kernel, stream):
            raise PluginError(
                f"{self.path}: CUDA error {status} when launching kernel {kernel.name} for a batch of {batch}; 1 says "
                "that its conditions do not hold (AUTO takes one whose conditions do), 209 that the library was not "
                "built for this GPU: proscale-deploy plugin build"
            )

    def _operator(self, attributes: Attributes, dtype: DType, head_dim: int) -> _DeformAttn:
        sizes = list(itertools.chain.from_iterable(attributes.levels))
        op = _DeformAttn(dtype, attributes.heads, head_dim, attributes.points, len(attributes.levels))
        count = min(len(sizes), len(op.sizes))  # the library refuses more levels by their number
        op.sizes[:count] = sizes[:count]
        problem = self.function("proscale_deform_attn_problem", [_ARGUMENTS[0], ctypes.c_char_p, ctypes.c_int32])
        text = ctypes.create_string_buffer(256)
        if problem(op, text, len(text)):
            raise PluginError(f"the operator is not supported: {text.value.decode()}")
        return op


def _dtype(array: NDArray[Any]) -> DType:
    for dtype, numpy_type in _NUMPY_TYPES.items():
        if array.dtype == numpy_type:
            return dtype
    raise InputError(f"expected value of float32, float16 or uint16 (the bits of bfloat16), found {array.dtype}")
