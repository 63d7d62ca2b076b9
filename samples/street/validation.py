"""Measures a network, whatever runs it, on streets whose truth is known."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from proscale_deploy.core.types import InputSpec, Panoptic, Placement, RawOutput, Segment, Thresholds
from proscale_deploy.export.metrics import PanopticQuality, PanopticScores
from proscale_deploy.export.model import MaskFormer
from proscale_deploy.runtime import preprocess
from proscale_deploy.runtime.postprocess import panoptic
from samples.street.dataset import Cache
from samples.street.population import CLASSES

__all__ = ["LabelledFrame", "Network", "cached_frames", "panoptic_scores", "torch_network"]

Network = Callable[[NDArray[np.uint8]], tuple[RawOutput, Placement]]
"""A frame (H, W, 3) BGR -> the outputs, and where the frame lay in the input."""


@dataclass(frozen=True)
class LabelledFrame:
    """``image`` uint8 (H, W, 3) BGR and its truth."""

    image: NDArray[np.uint8]
    truth: Panoptic


def torch_network(model: MaskFormer, spec: InputSpec) -> Network:
    """``model`` in evaluation mode, on the device where it is."""
    model.eval()
    device = next(model.parameters()).device

    @torch.inference_mode()
    def run(frame: NDArray[np.uint8]) -> tuple[RawOutput, Placement]:
        image, placement = preprocess(frame, spec)
        class_logits, mask_logits = model(torch.from_numpy(image)[None].to(device))
        return RawOutput(class_logits[0].cpu().numpy(), mask_logits[0].cpu().numpy()), placement

    return run


def cached_frames(cache: Cache) -> Iterator[LabelledFrame]:
    """All frames of a cache, rendering what is missing."""
    for index in range(len(cache.seeds)):
        cache.render(index)
        ids = cache.maps[index].astype(np.int32) + 1
        areas = np.bincount(ids.ravel())
        classes = cache.classes[index][cache.classes[index] >= 0].tolist()
        segments = tuple(Segment(i + 1, c, CLASSES[c].is_thing, int(areas[i + 1]), 1.0) for i, c in enumerate(classes))
        yield LabelledFrame(np.ascontiguousarray(cache.images[index, :, :, ::-1]), Panoptic(ids, segments))


def panoptic_scores(network: Network, frames: Iterable[LabelledFrame], thresholds: Thresholds) -> PanopticScores:
    """Panoptic quality over all frames."""
    quality = PanopticQuality(CLASSES)
    for frame in frames:
        raw, placement = network(frame.image)
        quality.add(panoptic(raw, placement, CLASSES, thresholds), frame.truth)
    return quality.result()
