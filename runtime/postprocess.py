"""From raw outputs to results: the official post-processing, pixel for pixel, at a fraction of its cost.

Each task has its module; what they share, full-size mask logits only where they can matter, is in
:mod:`proscale_deploy.runtime.tiles`.
"""

from collections.abc import Callable

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import ClassInfo, Placement, RawOutput, Result, Task, Thresholds
from proscale_deploy.runtime.instances import instances
from proscale_deploy.runtime.panoptic import panoptic
from proscale_deploy.runtime.semantic import semantic

__all__ = ["instances", "panoptic", "postprocess", "semantic"]

_TASKS: dict[str, Callable[..., Result]] = {"panoptic": panoptic, "instance": instances, "semantic": semantic}


def postprocess(
    raw: RawOutput, placement: Placement, classes: tuple[ClassInfo, ...], thresholds: Thresholds, task: Task
) -> Result:
    """The result of one task at the size of the source frame.

    Args:
        raw: class_logits (Q, K+1) and mask_logits (Q, h, w) of one image.
        placement: where the frame lay in the network's input.
        classes: K entries, in the order of the logits.
        thresholds: how logits become results.
        task: "panoptic", "instance" or "semantic".

    Raises:
        InputError: unknown task; ``raw`` does not fit ``placement`` or ``classes``; NaN or infinite logits.
    """
    if task not in _TASKS:
        raise InputError(f"unknown task {task!r}, expected one of: {', '.join(_TASKS)}")
    return _TASKS[task](raw, placement, classes, thresholds)
