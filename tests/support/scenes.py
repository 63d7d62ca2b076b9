"""Network outputs that look like those of a trained model, for tests and benchmarks of post-processing."""

import cv2
import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.types import RawOutput, Size


def typical_scene(mask_hw: Size, queries: int = 100, classes: int = 133, found: int = 20, seed: int = 0) -> RawOutput:
    """``found`` confident queries share the image among them; the others say "no object", with vague masks.

    Mask logits are smooth: within about +-10, crossing zero over a few samples at outlines that wander, uneven inside.
    """
    rng = np.random.default_rng(seed)
    height, width = mask_hw
    y, x = np.mgrid[:height, :width].astype(np.float32)

    def noise(grain: int) -> NDArray[np.float32]:
        coarse = rng.standard_normal((height // grain + 2, width // grain + 2)).astype(np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    # Regions around random centres; the wandering distance makes natural outlines.
    unit = np.sqrt(height * width / found)
    distance = np.stack(
        [
            np.hypot(y - cy, x - cx) * rng.uniform(0.6, 1.6) + 0.1 * unit * noise(max(2, int(unit / 4)))
            for cy, cx in zip(rng.uniform(0, height, found), rng.uniform(0, width, found), strict=True)
        ]
    )
    nearest = np.partition(distance, 1, axis=0)
    inside = nearest[1] - distance
    inside = np.where(distance == nearest[0], inside, nearest[0] - distance)

    masks = np.empty((queries, height, width), np.float32)
    logits = rng.normal(0, 1.5, (queries, classes + 1)).astype(np.float32)
    order = rng.permutation(queries)
    for query, region in zip(order[:found], inside, strict=True):
        masks[query] = 9 * np.tanh(region / 4) + 0.8 * noise(8) + 0.2 * noise(2) - 0.5
        logits[query, rng.integers(classes)] += rng.uniform(10, 14)
    for query in order[found:]:
        twin = inside[rng.integers(found)]
        masks[query] = 4 * np.tanh(twin / 6 - rng.uniform(0, 1.5)) - 3 + 1.2 * noise(8) + 0.3 * noise(2)
        logits[query, -1] += rng.uniform(7, 12)
    return RawOutput(logits, masks)
