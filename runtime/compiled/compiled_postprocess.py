"""Post-processing on the CPU with the compiled host library in place of numpy, for what is done per pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.native import Library
from proscale_deploy.core.types import (
    ClassInfo,
    Instances,
    Panoptic,
    Placement,
    RawOutput,
    Result,
    Semantic,
    Size,
    Task,
    Thresholds,
)
from proscale_deploy.runtime.compiled.mask_kernels import HostMasks, crop, measure, supports
from proscale_deploy.runtime.instances import best_pairs, rank
from proscale_deploy.runtime.logits import check_raw_output
from proscale_deploy.runtime.panoptic import kept_queries, number_segments
from proscale_deploy.runtime.postprocess import postprocess
from proscale_deploy.runtime.semantic import class_weights
from proscale_deploy.runtime.taps import mask_plan

__all__ = ["compiled_postprocess"]


def compiled_postprocess(
    library: Library,
    raw: RawOutput,
    placement: Placement,
    classes: tuple[ClassInfo, ...],
    thresholds: Thresholds,
    task: Task,
) -> Result:
    """What :func:`~proscale_deploy.runtime.postprocess.postprocess` gives, in less time where the library can do it.

    Pixels whose two best values differ by rounding may go to the other.

    Raises:
        InputError: as by ``postprocess``.
        PluginError: ``library`` has no such functions: it must be libproscale_host.so.
    """
    if task not in _TASKS:
        raise InputError(f"unknown task {task!r}, expected one of: {', '.join(_TASKS)}")
    mask_hw: Size = raw.mask_logits.shape[1:]
    if not supports(len(raw.mask_logits), len(classes), mask_hw, placement.source_hw):
        return postprocess(raw, placement, classes, thresholds, task)
    check_raw_output(raw, placement, classes)
    masks_first = task != "semantic" or thresholds.resize_masks_first
    plan = mask_plan(mask_hw, placement, masks_first)
    return _TASKS[task](HostMasks(library, plan, raw.mask_logits), raw, placement, classes, thresholds)


def _panoptic(
    masks: HostMasks, raw: RawOutput, placement: Placement, classes: tuple[ClassInfo, ...], thresholds: Thresholds
) -> Panoptic:
    kept = kept_queries(raw.class_logits, thresholds)
    if not len(kept.queries):
        return Panoptic(np.zeros(placement.source_hw, np.int32), ())
    codes, counts = masks.panoptic(kept.queries, kept.scores)
    ids, segments = number_segments(kept, counts, classes, thresholds)
    return Panoptic(masks.relabel(codes, ids), segments)


def _instances(
    masks: HostMasks, raw: RawOutput, placement: Placement, classes: tuple[ClassInfo, ...], thresholds: Thresholds
) -> Instances:
    pairs = best_pairs(raw.class_logits, classes, thresholds)
    if not len(pairs.queries):
        return rank(pairs, np.empty(0, np.float32), np.empty((0, 4), np.int32), [], placement.source_hw)
    bitmaps, stats = masks.instances(pairs.queries)
    quality, boxes = measure(stats, placement.source_hw)
    crops = [crop(rows[box[1] : box[3]], box) for rows, box in zip(bitmaps, boxes.tolist(), strict=True)]
    return rank(pairs, quality, boxes, crops, placement.source_hw)


def _semantic(
    masks: HostMasks, raw: RawOutput, placement: Placement, classes: tuple[ClassInfo, ...], thresholds: Thresholds
) -> Semantic:
    return Semantic(*masks.semantic(class_weights(raw.class_logits)))


_TASKS: dict[str, Callable[..., Result]] = {"panoptic": _panoptic, "instance": _instances, "semantic": _semantic}
