"""The kernels that are compared: a peer binds a case's inputs into calls that only queue work on the current stream."""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from plugins.bench import forms
from plugins.bench.cases import HEAD_DIM, HEADS, POINTS, Case, Inputs
from proscale_deploy.core.errors import InputError, PluginError
from proscale_deploy.core.native import DType, Kernel, Library

__all__ = ["FORMS", "Calls", "Foreign", "Ours", "Peer", "Torch", "deformops_peers", "parse_peer"]

FORMS = ("fused", "locations", "locations-int32", "flash")
"""What a shared library's function takes; README.md gives the signatures."""

_TYPES = {torch.float32: DType.FLOAT, torch.float16: DType.HALF, torch.bfloat16: DType.BFLOAT16}


@dataclass(frozen=True)
class Calls:
    """One set of inputs, bound."""

    whole: Callable[[], torch.Tensor]
    """From value and raw sampling to the output (B, S, C)."""
    op_only: Callable[[], torch.Tensor] | None = None
    """Without the preparation that the peer's kernel needs: from locations and weights that are there already."""


class Peer(Protocol):
    @property
    def name(self) -> str: ...

    def bind(self, case: Case, inputs: Inputs) -> Calls:
        """Raises whatever the peer raises where it cannot do a case."""
        ...


@dataclass(frozen=True)
class Ours:
    """One kernel of a libproscale_plugin.so."""

    name: str
    library: Library
    kernel: Kernel

    def bind(self, case: Case, inputs: Inputs) -> Calls:
        output = torch.empty_like(inputs.value)  # of each set of inputs its own

        def whole() -> torch.Tensor:
            tensors = (tensor.data_ptr() for tensor in (inputs.value, inputs.sampling, output))
            self.library.device(
                case.attributes,
                _TYPES[output.dtype],
                HEAD_DIM,
                case.batch,
                *tensors,
                kernel=self.kernel,
                stream=torch.cuda.current_stream().cuda_stream,
            )
            return output

        return Calls(whole)


@dataclass(frozen=True)
class Torch:
    """The grid_sample form, eager or compiled."""

    name: str
    is_compiled: bool

    def bind(self, case: Case, inputs: Inputs) -> Calls:
        grid = forms.Grid.of(case, inputs.value.device)
        fused, attend = forms.fused_by_grid_sample, forms.attend_by_grid_sample
        if self.is_compiled:
            fused, attend = _compiled(fused), _compiled(attend)
        locations, logits = forms.locations_and_logits(inputs.sampling, grid)
        locations, weights = locations.to(inputs.value.dtype), logits.softmax(-1)
        return Calls(
            lambda: fused(inputs.value, inputs.sampling, grid),
            lambda: attend(inputs.value, grid.levels, locations, weights),
        )


@functools.cache
def _compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """For each case anew: with shapes left open it would be slower than what it stands for."""
    return torch.compile(function, dynamic=False)


def _locations_and_logits(
    sampling: torch.Tensor, grid: forms.Grid, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    locations, logits = forms.locations_and_logits(sampling, grid)
    return locations.to(dtype), logits.contiguous()


def _locations_and_weights(
    sampling: torch.Tensor, grid: forms.Grid, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    locations, logits = forms.locations_and_logits(sampling, grid)
    return locations.to(dtype), logits.softmax(-1)


def _locations_beside_logits(sampling: torch.Tensor, grid: forms.Grid, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    locations, logits = forms.locations_and_logits(sampling, grid)
    return (torch.cat([locations.to(dtype).flatten(3), logits], -1),)


@dataclass(frozen=True)
class Foreign:
    """A function of a shared library. What its form needs is made by compiled torch code."""

    name: str
    function: Callable[..., int]
    form: str

    def bind(self, case: Case, inputs: Inputs) -> Calls:
        dtype = inputs.value.dtype
        grid = forms.Grid.of(case, inputs.value.device)
        integers = torch.int32 if self.form == "locations-int32" else torch.int64
        shapes, starts = grid.shapes.to(integers), grid.starts.to(integers)
        sizes = (case.batch, case.attributes.tokens, HEADS, HEAD_DIM, len(case.levels), POINTS)

        output = torch.empty_like(inputs.value)

        def run(*prepared: torch.Tensor) -> torch.Tensor:
            tensors = (inputs.value, shapes, starts, *prepared, output)
            pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            if status := self.function(int(_TYPES[dtype]), *sizes, *pointers, stream):
                raise PluginError(f"returned {status}")
            return output

        if self.form == "fused":
            return Calls(lambda: run(inputs.sampling))
        prepare = _compiled(_locations_beside_logits if self.form == "flash" else _locations_and_weights)
        ready = prepare(inputs.sampling, grid, dtype)
        return Calls(lambda: run(*prepare(inputs.sampling, grid, dtype)), lambda: run(*ready))


def parse_peer(text: str) -> Peer:
    """NAME=LIBRARY.so:SYMBOL:FORM, or NAME=LIBRARY.so for another build of this project's library.

    Raises:
        InputError: it is not of that form, or there is no such library, function or form.
        PluginError: a library without SYMBOL is not this project's.
    """
    name, _, rest = text.partition("=")
    path, _, rest = rest.partition(":")
    if name and path and not rest:
        return Ours(name, Library(Path(path)), Kernel.AUTO)
    symbol, _, form = rest.partition(":")
    if not (name and path and symbol and form in FORMS):
        raise InputError(
            f"--peer {text}: expected NAME=LIBRARY.so:SYMBOL:FORM, FORM one of {', '.join(FORMS)}, or NAME=LIBRARY.so"
        )
    try:
        function = ctypes.CDLL(str(Path(path).resolve()))[symbol]
    except OSError as error:
        raise InputError(f"--peer {name}: {error}") from error
    except AttributeError as error:
        raise InputError(f'--peer {name}: {path} has no function {symbol}; it must be extern "C"') from error
    return Foreign(name, function, form)


@dataclass(frozen=True)
class _DeformOps:
    """deformops 3: it takes raw logits, and locations in FP32 whatever the type of the values is."""

    name: str
    backend: object
    function: Callable[..., torch.Tensor]

    def bind(self, case: Case, inputs: Inputs) -> Calls:
        grid = forms.Grid.of(case, inputs.value.device)
        value = inputs.value.unflatten(-1, (HEADS, HEAD_DIM))
        prepare = _compiled(_locations_and_logits)

        def run(locations: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            output = self.function(
                value, grid.shapes, grid.starts, locations, logits, method="softmax", backend=self.backend
            )
            return output.view(case.batch, -1, HEADS * HEAD_DIM)

        ready = prepare(inputs.sampling, grid, torch.float32)
        return Calls(lambda: run(*prepare(inputs.sampling, grid, torch.float32)), lambda: run(*ready))


def deformops_peers() -> list[Peer]:
    """Its CUDA and its Triton kernel; none where the package is not installed."""
    try:
        registry = importlib.import_module("deformops.registry")
    except ImportError:
        return []
    backends = registry.Backend.CUDA, registry.Backend.TRITON
    return [_DeformOps(f"deformops, {backend.value}", backend, registry.msda) for backend in backends]
