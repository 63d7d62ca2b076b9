"""Runs the operator on device memory, which PyTorch holds."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from proscale_deploy.core.native import DType, Kernel, Library
from proscale_deploy.core.operator import Attributes

__all__ = ["GUARD", "TORCH_TYPES", "Tensors", "launch", "run", "to_device", "to_host"]

TORCH_TYPES = {DType.FLOAT: torch.float32, DType.HALF: torch.float16, DType.BFLOAT16: torch.bfloat16}
GUARD = 256
"""Bytes around an output."""


@dataclass(frozen=True)
class Tensors:
    """On the device."""

    attributes: Attributes
    value: torch.Tensor
    """(B, S, C)."""
    sampling: torch.Tensor
    """(B, S, heads x levels x points x 3)."""

    @property
    def head_dim(self) -> int:
        return self.value.shape[-1] // self.attributes.heads


def launch(library: Library, tensors: Tensors, output: torch.Tensor, kernel: Kernel, stream: int = 0) -> None:
    """Queue the operator. ``output`` (B, S, C) is dense."""
    assert tensors.value.is_contiguous()
    assert tensors.sampling.is_contiguous()
    assert output.is_contiguous()
    dtype = next(dtype for dtype, torch_type in TORCH_TYPES.items() if torch_type == output.dtype)
    library.device(
        tensors.attributes,
        dtype,
        tensors.head_dim,
        len(tensors.value),
        tensors.value.data_ptr(),
        tensors.sampling.data_ptr(),
        output.data_ptr(),
        kernel=kernel,
        stream=stream,
    )


def run(library: Library, tensors: Tensors, kernel: Kernel = Kernel.AUTO) -> torch.Tensor:
    """The output (B, S, C), on PyTorch's current stream.

    It is full of NaN before, and what lies around it must stay as it was.
    """
    size = tensors.value.nbytes
    memory = torch.full((size + 2 * GUARD,), 255, dtype=torch.uint8, device=tensors.value.device)
    output = memory[GUARD : GUARD + size].view(tensors.value.dtype).view(tensors.value.shape)
    stream = torch.cuda.current_stream().cuda_stream if output.is_cuda else 0
    launch(library, tensors, output, kernel, stream)
    assert bool((memory[:GUARD] == 255).all())
    assert bool((memory[-GUARD:] == 255).all())
    return output


def to_device(array: NDArray, dtype: DType, device: torch.device, *, off_by: int = 0) -> torch.Tensor:
    """What ``support.deform_attn_cases.encode`` made, ``off_by`` elements from where memory begins."""
    memory = torch.empty(array.nbytes + off_by * array.itemsize, dtype=torch.uint8, device=device)
    memory = memory[off_by * array.itemsize :]
    memory.copy_(torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8)))
    return memory.view(TORCH_TYPES[dtype]).view(array.shape)


def to_host(tensor: torch.Tensor) -> NDArray:
    """As ``support.deform_attn_cases.encode`` would give it."""
    tensor = tensor.cpu()
    return tensor.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
