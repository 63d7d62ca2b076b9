"""Two stations of one model on the same pictures: errors of the outputs, and what becomes of them in task metrics."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from math import inf, isnan
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import ClassInfo, InputSpec, Instances, Panoptic, RawOutput, Result, Semantic, Task
from proscale_deploy.export.mask_ap import MaskAP
from proscale_deploy.export.metrics import MeanIoU, PanopticQuality

__all__ = [
    "LIMITS",
    "Check",
    "Comparison",
    "FrameReport",
    "Limits",
    "OutputError",
    "Verification",
    "View",
    "check_comparable",
    "finite",
    "limits_for",
]

_PRECISIONS: Final = ("fp32", "fp16", "int8")
"""From the most exact on."""

_SURE: Final = 0.5
"""Instances that A scores lower are not taken for true: its list is padded with guesses."""


@dataclass(frozen=True)
class Limits:
    """How far B may be from A. Errors are the median over the pictures of |B - A| / |A| (L2): where a mask logit lies
    on the threshold of an attention mask, rounding decides, and one picture stands out though nothing is wrong.
    """

    class_logits: float
    mask_logits: float
    pq: float
    """Least panoptic quality of B's results, A's being the truth, in percent; the same for the next two."""
    miou: float
    ap: float


LIMITS: Final[Mapping[str, Limits]] = {
    "fp32": Limits(class_logits=1e-4, mask_logits=1e-4, pq=99.5, miou=99.5, ap=99.5),
    "fp16": Limits(class_logits=5e-3, mask_logits=5e-3, pq=98.5, miou=99.0, ap=97.0),
    "int8": Limits(class_logits=0.15, mask_logits=0.15, pq=92.0, miou=94.0, ap=85.0),
}
"""Measured with sound files in ONNX Runtime on a CPU (class_logits, mask_logits, pq, miou, ap), some room being left
for other models and for the chance of fewer pictures:

- sample model, 200 held-out streets, FP16 rounded as on a GPU (``emulate``): FP16 against FP32 1.0e-3, 8.2e-4, 99.9,
  99.9, 99.5; INT8 against FP32 0.055, 0.046, 97.9, 97.7, 92.4; FP32 against PyTorch 2.3e-7, 2.8e-7, 100, 100, 100;
- official architectures with synthetic weights, which find nothing and leave many mask logits near the threshold of the
  attention masks, FP16 against PyTorch: Mask2Former with ResNet-50 at 96x128 1.0e-3, 1.2e-3; PRO-SCALE with Swin-T
  2.1e-3, 1.8e-3, but 1.3e-2, 5.1e-3 at 192x256, whichever part of the network is in FP16.
"""


@dataclass(frozen=True)
class OutputError:
    """B's error in one output of one picture. The relative error of a value is |b - a| / max(|a|, rms(A)): relative
    where values are large, in units of the output's usual size where they are near zero.
    """

    max_absolute: float
    mean_absolute: float
    p999_absolute: float
    """The value that one of a thousand exceeds."""
    max_relative: float
    mean_relative: float
    p999_relative: float
    l2: float
    """|B - A| / |A|."""
    cosine: float


@dataclass(frozen=True)
class View:
    """What one station makes of a picture."""

    raw: RawOutput
    """As the network gave it: B's may hold NaN and infinite values."""
    results: Mapping[Task, Result]


@dataclass(frozen=True)
class FrameReport:
    """One picture."""

    name: str
    outputs: dict[str, OutputError]

    @property
    def worst(self) -> float:
        """The larger of the outputs' L2 errors; infinite where one is NaN."""
        return max(inf if isnan(error.l2) else error.l2 for error in self.outputs.values())


@dataclass(frozen=True)
class Check:
    """One limit, and whether it is kept."""

    name: str
    found: float | None
    """None: the pictures hold nothing to judge it by."""
    limit: float
    passed: bool


@dataclass(frozen=True)
class Verification:
    """All pictures."""

    frames: tuple[FrameReport, ...]
    agreement: dict[str, float | None]
    """pq, sq, rq, miou, ap of B's results in percent, A's being the truth; None where A finds nothing; only the tasks
    of the model."""

    def checks(self, limits: Limits) -> tuple[Check, ...]:
        """Every limit that can be judged."""
        checks = []
        for field in fields(Limits):
            name, limit = field.name, float(getattr(limits, field.name))
            if name in ("class_logits", "mask_logits"):
                found: float | None = float(np.median([frame.outputs[name].l2 for frame in self.frames]))
                checks.append(Check(name, found, limit, found is not None and found <= limit))  # False for NaN
            elif name in self.agreement:
                found = self.agreement[name]
                checks.append(Check(name, found, limit, found is None or found >= limit))
        return tuple(checks)

    def summary(self) -> dict[str, OutputError]:
        """Over the pictures: the mean of means, the least cosine, of the rest the largest."""
        return {name: _worst([frame.outputs[name] for frame in self.frames]) for name in self.frames[0].outputs}


class Comparison:
    """Streaming: pictures are added one by one, none is kept."""

    def __init__(self, classes: Sequence[ClassInfo], tasks: Collection[Task]) -> None:
        self._frames: list[FrameReport] = []
        self._quality = PanopticQuality(classes) if "panoptic" in tasks else None
        self._overlap = MeanIoU(len(classes)) if "semantic" in tasks else None
        self._precision = MaskAP(classes) if "instance" in tasks else None

    def add(self, name: str, a: View, b: View) -> FrameReport:
        """Compare the two on one picture.

        Raises:
            InputError: outputs of different shapes.
        """
        frame = FrameReport(
            name,
            {
                output: output_error(getattr(a.raw, output), getattr(b.raw, output))
                for output in ("class_logits", "mask_logits")
            },
        )
        self._frames.append(frame)
        if self._quality is not None:
            self._quality.add(cast(Panoptic, b.results["panoptic"]), cast(Panoptic, a.results["panoptic"]))
        if self._overlap is not None:
            self._overlap.add(cast(Semantic, b.results["semantic"]), cast(Semantic, a.results["semantic"]).map)
        if self._precision is not None:
            truth = self._precision.as_truth(cast(Instances, a.results["instance"]), _SURE)
            self._precision.add(cast(Instances, b.results["instance"]), truth)
        return frame

    def result(self) -> Verification:
        """All pictures so far.

        Raises:
            InputError: there was none.
        """
        if not self._frames:
            raise InputError("no picture was compared; give --data images or a video that can be read")
        agreement: dict[str, float | None] = {}
        if self._quality is not None:
            score = self._quality.result().all
            agreement |= {"pq": _number(score.pq), "sq": _number(score.sq), "rq": _number(score.rq)}
        if self._overlap is not None:
            agreement["miou"] = _number(self._overlap.result().miou)
        if self._precision is not None:
            agreement["ap"] = _number(self._precision.result().ap)
        return Verification(tuple(self._frames), agreement)


def output_error(a: NDArray[np.float32], b: NDArray[np.float32]) -> OutputError:
    """B's errors in one output, computed in float64; NaN where B holds NaN or an infinite value.

    Raises:
        InputError: the shapes differ.
    """
    if a.shape != b.shape:
        raise InputError(f"the outputs have the shapes {a.shape} and {b.shape}; compare stations of one model")
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    y[np.isinf(y)] = np.nan
    least = float(np.finfo(np.float32).tiny)
    norm_x, norm_y = max(float(np.linalg.norm(x)), least), max(float(np.linalg.norm(y)), least)
    absolute = np.abs(y - x)
    relative = absolute / np.maximum(np.abs(x), norm_x / x.size**0.5)
    l2, cosine = float(np.linalg.norm(absolute)) / norm_x, float(x @ y) / norm_x / norm_y
    return OutputError(*_spread(absolute), *_spread(relative), l2, cosine)


def finite(raw: RawOutput) -> RawOutput:
    """Outputs of which results can be made whatever they hold: 0 in place of NaN, FP16's greatest for infinity.

    What has overflowed is to be measured and shown, not refused.
    """
    greatest = float(np.finfo(np.float16).max)
    return RawOutput(
        *(np.nan_to_num(x, posinf=greatest, neginf=-greatest) for x in (raw.class_logits, raw.mask_logits))
    )


def check_comparable(a: Manifest, b: Manifest) -> None:
    """Refuse stations that do not take the same inputs and give the same outputs.

    Raises:
        InputError: sizes, normalisation, queries or classes differ.
    """
    ours, theirs = (f"{manifest.input.height}x{manifest.input.width}" for manifest in (a, b))
    if ours != theirs:
        raise InputError(
            f"A was exported for inputs of {ours}, B for {theirs}: export both at one size, with --size {ours}"
        )
    other = "compare files of one model, exported from one YAML"
    for field in fields(InputSpec):
        ours, theirs = (_words(getattr(manifest.input, field.name)) for manifest in (a, b))
        if ours != theirs:
            raise InputError(
                f"A and B prepare pictures differently: {field.name} is {ours} in A, {theirs} in B; {other}"
            )
    if a.queries != b.queries:
        raise InputError(f"A has {a.queries} queries, B {b.queries}; {other}")
    if len(a.classes) != len(b.classes):
        raise InputError(f"A has {len(a.classes)} classes, B {len(b.classes)}; {other}")
    for number, pair in enumerate(zip(a.classes, b.classes, strict=True)):
        ours, theirs = (f"{info.name} ({'thing' if info.is_thing else 'stuff'})" for info in pair)
        if ours != theirs:
            raise InputError(f"class {number} is {ours} in A, {theirs} in B; {other} and class list")


def limits_for(a: Manifest, b: Manifest) -> tuple[str, Limits]:
    """The precision of the less exact of the two, and the limits that go with it."""
    precision = max(a.precision, b.precision, key=_PRECISIONS.index)
    return precision, LIMITS[precision]


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _worst(errors: Sequence[OutputError]) -> OutputError:
    figures = np.array([astuple(error) for error in errors])
    names = [field.name for field in fields(OutputError)]
    means, least = figures.mean(axis=0), figures.min(axis=0)
    worst = figures.max(axis=0)
    for column, name in enumerate(names):
        if name.startswith("mean"):
            worst[column] = means[column]
        elif name == "cosine":
            worst[column] = least[column]
    return OutputError(*worst.tolist())


def _spread(errors: NDArray[np.float64]) -> tuple[float, float, float]:
    """Maximum, mean, and without sorting millions of values the smallest that at most one of a thousand exceeds."""
    place = max(0, -(-999 * len(errors) // 1000) - 1)
    return float(errors.max()), float(errors.mean()), float(np.partition(errors, place)[place])


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
