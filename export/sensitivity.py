"""What each block of a network loses in FP16 or INT8, and the cheapest mix of precisions within a tolerance."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from proscale_deploy.core.errors import PrecisionError
from proscale_deploy.core.types import RawOutput
from proscale_deploy.export.blocks import block_of
from proscale_deploy.export.calibration import CalibrationImages, evenly
from proscale_deploy.export.emulate import emulate_half
from proscale_deploy.export.equality import OUTPUTS, relative_l2
from proscale_deploy.export.half import to_half
from proscale_deploy.export.precision import (
    Precision,
    Progress,
    Recipe,
    block_levels,
    counted,
    int8_nodes,
    levels_of,
    silent,
)
from proscale_deploy.export.quantize import activations, insert_pairs, quantizable
from proscale_deploy.export.ranges import calibrate, run_network
from proscale_deploy.export.summary import macs_by

__all__ = ["Agreement", "BlockLoss", "Laboratory", "Loss", "choose"]

IMAGES: Final = 16
"""Pictures that losses are measured on."""

Judge = Callable[[Sequence[RawOutput], Sequence[RawOutput]], "Agreement"]
"""(what FP32 gives, what is judged), one entry per picture -> agreement."""


@dataclass(frozen=True)
class Agreement:
    """Metrics of results in percent, those of FP32 being the truth: 100 is no difference."""

    pq: float
    """NaN where neither finds a segment."""
    miou: float


@dataclass(frozen=True)
class Loss:
    """What a network of reduced precision differs by from FP32."""

    pq: float
    """Points of panoptic quality: 100 less the agreement."""
    miou: float
    error: float
    """Median over the pictures of the larger relative L2 error of the two outputs."""


@dataclass(frozen=True)
class BlockLoss:
    """One block of the network in one precision, all others in FP32."""

    block: str
    precision: Precision
    gmac: float
    """10^9 multiply-accumulates of the block for one image."""
    loss: Loss


class Laboratory:
    """A network, pictures and a judge: measures what any mix of precisions loses."""

    def __init__(
        self,
        model: onnx.ModelProto,
        images: CalibrationImages,
        judge: Judge,
        exclude: tuple[str, ...] = (),
        progress: Progress = silent,
    ) -> None:
        """``model`` is FP32, as ``to_onnx`` makes it; ``exclude`` as in :class:`~.precision.Recipe`.

        Raises:
            PrecisionError: ONNX Runtime cannot run the model, its tensors are not finite, or it finds nothing in the
                pictures.
        """
        self.model = model
        self.exclude = exclude
        cheapest = Recipe("int8", exclude)
        chosen = int8_nodes(levels_of(model, cheapest))
        self.cheapest = block_levels(model, cheapest, chosen & set(quantizable(model)))
        """Block -> the lowest precision that it has: INT8, or FP16 if nothing of it may be in INT8."""
        tensors = activations(model, chosen)
        self.ranges = calibrate(model, tensors, counted(images.arrays, "INT8's ranges, image", progress))
        self._images = evenly(list(images.arrays), IMAGES)
        self._judge = judge
        self._macs = macs_by(model, block_of)
        self._reference = self._run(model)
        if np.isnan(judge(self._reference, self._reference).pq):
            raise PrecisionError(
                f"{images.facts.source}: the model finds no segment in {len(self._images)} pictures, so nothing can be "
                "lost; give pictures of what it was trained for"
            )

    def loss(self, precision: Precision, blocks: Mapping[str, Precision]) -> Loss:
        """Of the mix that has ``precision`` in all blocks but those in ``blocks``."""
        levels = levels_of(self.model, Recipe(precision, self.exclude, blocks=blocks))
        chosen = int8_nodes(levels)
        mixed = insert_pairs(self.model, chosen, self.ranges) if chosen else self.model
        found = self._run(emulate_half(to_half(mixed, lambda node: levels.get(node.name) == "fp32")))
        agreement = self._judge(self._reference, found)
        errors = [
            max(relative_l2(getattr(a, output), getattr(b, output)) for output in OUTPUTS)
            for a, b in zip(found, self._reference, strict=True)
        ]
        return Loss(100 - agreement.pq, 100 - agreement.miou, float(np.median(errors)))

    def survey(self, precisions: Sequence[Precision], progress: Progress = silent) -> list[BlockLoss]:
        """The loss of every block that alone goes to each of ``precisions``, if it has that precision."""
        alone = [
            (block, precision)
            for precision in precisions
            for block, cheapest in self.cheapest.items()
            if precision != "int8" or cheapest == "int8"
        ]
        return [
            BlockLoss(block, precision, self._macs.get(block, 0) / 1e9, self.loss("fp32", {block: precision}))
            for block, precision in counted(alone, "losses, block", progress)
        ]

    def _run(self, model: onnx.ModelProto) -> list[RawOutput]:
        return [RawOutput(classes[0], masks[0]) for classes, masks in run_network(model, OUTPUTS, self._images)]


def choose(laboratory: Laboratory, tolerance: float, progress: Progress = silent) -> tuple[dict[str, Precision], Loss]:
    """The precision of every block such that the whole loses at most ``tolerance`` points of panoptic quality.

    From the lowest precision of each, blocks are raised one step at a time, first those that lose most per
    multiply-accumulate, to FP16 and then to FP32. The loss of whole mixes is measured, not added up; the fewest steps
    that will do are found by halving.
    """
    survey = laboratory.survey(("int8", "fp16"), progress)
    steps = [
        step
        for precision in ("int8", "fp16")
        for step in sorted(
            (entry for entry in survey if entry.precision == precision),
            key=_loss_per_gmac,
            reverse=True,
        )
    ]

    def mix(count: int) -> dict[str, Precision]:
        blocks = dict(laboratory.cheapest)
        for step in steps[:count]:
            blocks[step.block] = "fp16" if step.precision == "int8" else "fp32"
        return blocks

    low, high, trials = 0, len(steps), len(steps).bit_length()
    losses: dict[int, Loss] = {high: Loss(0.0, 0.0, 0.0)}  # all FP32
    while low < high:
        middle = (low + high) // 2
        progress("mixes", min(len(losses), trials - 1), trials)
        losses[middle] = laboratory.loss("int8", mix(middle))
        if losses[middle].pq <= tolerance:
            high = middle
        else:
            low = middle + 1
    progress("mixes", trials, trials)
    return mix(high), losses[high]


def _loss_per_gmac(entry: BlockLoss) -> tuple[float, float]:
    work = max(entry.gmac, 1e-9)
    return entry.loss.pq / work, entry.loss.error / work
