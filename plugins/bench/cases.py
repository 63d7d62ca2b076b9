"""What is measured: shapes, types and offsets, and the inputs made of them.

Every axis is varied around one case, three levels of an 800x1344 image at batch 1 in FP16 (`HEADLINE`).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch

from proscale_deploy.core.operator import Attributes
from proscale_deploy.core.types import Size

__all__ = ["DTYPES", "HEADLINE", "PRIME", "Case", "Inputs", "Offsets", "all_cases", "make_inputs", "quick_cases"]

HEADS, HEAD_DIM, POINTS = 8, 32, 4
STRIDES = (32, 16, 8)
"""Of the levels, in the order in which PRO-SCALE's stages add them."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PRIME: tuple[Size, ...] = ((13, 17), (25, 33), (51, 67))
"""Odd sizes, 4463 tokens, a prime number: no tile, block or vector fits."""


@dataclass(frozen=True)
class Offsets:
    """Normal noise added to the offsets that Deformable DETR starts from, in pixels of the sampled level."""

    sigma: float
    tail: float = 0.0
    """Share of the samples with `tail_sigma` instead."""
    tail_sigma: float = 30.0

    def __str__(self) -> str:
        return f"{self.sigma:g} px" + (f", {self.tail:.0%} {self.tail_sigma:g} px" if self.tail else "")


@dataclass(frozen=True)
class Case:
    image: str
    """Where the sizes come from: "800x1344"."""
    levels: tuple[Size, ...]
    batch: int = 1
    dtype: str = "fp16"
    offsets: Offsets = Offsets(2.0)

    @property
    def attributes(self) -> Attributes:
        return Attributes(HEADS, POINTS, self.levels)

    @property
    def name(self) -> str:
        return f"{self.image} L={len(self.levels)} B={self.batch} {self.dtype} {self.offsets}"

    @property
    def bytes_moved(self) -> int:
        """Least traffic of the fused operator: each of value, sampling and output once."""
        row = 2 * HEADS * HEAD_DIM + 3 * self.attributes.samples
        return self.batch * self.attributes.tokens * row * DTYPES[self.dtype].itemsize

    @property
    def corner_bytes(self) -> int:
        """What the bilinear interpolation reads: four pixels for each sample, from whatever cache."""
        return (
            self.batch * self.attributes.tokens * self.attributes.samples * 4 * HEAD_DIM * DTYPES[self.dtype].itemsize
        )


def _levels(height: int, width: int, count: int) -> tuple[Size, ...]:
    return tuple((math.ceil(height / stride), math.ceil(width / stride)) for stride in STRIDES[:count])


def _image(height: int, width: int, count: int) -> Case:
    return Case(f"{height}x{width}", _levels(height, width, count))


HEADLINE = _image(800, 1344, 3)
_TAIL = Offsets(2.0, tail=0.05)


def quick_cases() -> list[Case]:
    """The headline, one step along each axis."""
    return [
        HEADLINE,
        _image(800, 1344, 2),
        _image(800, 1344, 1),
        _image(800, 1333, 3),
        dataclasses.replace(HEADLINE, dtype="fp32"),
        dataclasses.replace(HEADLINE, batch=8),
        dataclasses.replace(HEADLINE, offsets=_TAIL),
    ]


def all_cases() -> list[Case]:
    """Every image, level count, batch, type and offset distribution, each around the headline."""
    cases = [HEADLINE]
    for height, width in ((800, 1344), (800, 1333), (512, 1024), (1024, 2048)):
        cases += [_image(height, width, count) for count in (1, 2, 3)]
    cases.append(Case("prime", PRIME))
    cases += [dataclasses.replace(HEADLINE, batch=batch) for batch in (2, 4, 8)]
    cases += [dataclasses.replace(HEADLINE, offsets=offsets) for offsets in (*map(Offsets, (0.0, 0.5, 5.0)), _TAIL)]
    cases += [dataclasses.replace(case, dtype="fp32") for case in cases]
    cases.append(dataclasses.replace(HEADLINE, dtype="bf16"))
    return list(dict.fromkeys(cases))


@dataclass(frozen=True)
class Inputs:
    """One set: the operator's inputs, as core/operator.py lays them out."""

    value: torch.Tensor
    """(batch, tokens, heads x head_dim)."""
    sampling: torch.Tensor
    """(batch, tokens, heads x levels x points x 3)."""


def make_inputs(case: Case, seed: int, device: torch.device | str = "cpu") -> Inputs:
    """Values N(0, 1), logits N(0, 1.5), offsets the ring that Deformable DETR starts from plus noise.

    The ring (its `_reset_parameters`): head h looks along 45 degrees x h, point p stands p + 1 pixels away by the
    greater of its coordinates, alike in all levels.
    """
    attributes, levels = case.attributes, len(case.levels)
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    value = normal(case.batch, attributes.tokens, HEADS * HEAD_DIM)
    logits = 1.5 * normal(case.batch, attributes.tokens, attributes.samples)
    noise = normal(case.batch, attributes.tokens, HEADS, levels, POINTS, 2)
    sigma = torch.full(noise.shape[:-1], case.offsets.sigma, device=device)
    if case.offsets.tail:
        is_far = torch.rand(sigma.shape, generator=generator, device=device) < case.offsets.tail
        sigma = torch.where(is_far, case.offsets.tail_sigma, sigma)
    angle = torch.arange(HEADS, device=device) * (2 * math.pi / HEADS)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, POINTS + 1, device=device)
    ring = direction[:, None, None, :] * steps[:, None]  # (heads, 1, points, 2)
    offsets = ring + noise * sigma[..., None]
    sampling = torch.cat([offsets.flatten(2), logits], -1)
    dtype = DTYPES[case.dtype]
    return Inputs(value.to(dtype), sampling.to(dtype))
