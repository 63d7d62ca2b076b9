"""What tests give to sessions of engines, and what must come back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from support.color_model import HEIGHT, WIDTH, ColorSession


def images(batch: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """For the colour model."""
    return np.random.default_rng(seed).uniform(0, 255, (batch, 3, HEIGHT, WIDTH)).astype(np.float32)


def check(session: Any, given: NDArray[np.float32], tolerance: float = 1e-3) -> None:
    """A session of the colour model gives its outputs."""
    outputs, expected = session.run(given), ColorSession().run(given)
    assert len(outputs) == len(given)
    for output, other in zip(outputs, expected, strict=True):
        assert output.class_logits.dtype == output.mask_logits.dtype == np.float32
        np.testing.assert_allclose(output.class_logits, other.class_logits)
        np.testing.assert_allclose(output.mask_logits, other.mask_logits, rtol=tolerance, atol=tolerance)
