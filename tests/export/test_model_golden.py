"""The models against the official implementation: every entry of its state dict, every array of its golden outputs."""

import numpy as np
import pytest
import torch

from proscale_deploy.export.model import build_model
from support.reference import CASES, load_case, relative_l2, state_dict_entries

LIMIT = 1e-4
"""Relative L2 error, float32."""


def _sparse(found: torch.Tensor, golden: np.ndarray) -> torch.Tensor:
    """The channels of ``found`` (1, C, ...) that the golden file keeps."""
    return found[0, :: found.shape[1] // len(golden)]


@pytest.mark.parametrize("name", CASES)
def test_every_golden_array_is_reproduced(name: str) -> None:
    case = load_case(name)
    model = build_model(case.spec).eval()
    missing, unexpected = model.load_state_dict(case.weights, strict=False)
    assert all("num_batches_tracked" in key or "relative_position_index" in key for key in missing)
    assert set(unexpected) <= {"criterion.empty_weight"}

    with torch.inference_mode():
        features = model.backbone(case.image)
        mask_features, maps = model.encode(case.image)
        class_logits, mask_logits = model(case.image)

    found = {
        "res5": features[3],
        "mask_features": mask_features,
        "encoder_res5": maps[0],
        "encoder_res4": maps[1],
        "encoder_res3": maps[2],
        "pred_logits": class_logits,
        "pred_masks": mask_logits,
    }
    errors = {key: relative_l2(_sparse(found[key], case.golden[key]), case.golden[key]) for key in found}
    assert set(errors) == set(case.golden)
    assert max(errors.values()) < LIMIT, errors


@pytest.mark.parametrize("name", CASES)
def test_entries_are_the_official_ones(name: str) -> None:
    official = state_dict_entries(name)
    official.pop("criterion.empty_weight", None)
    with torch.device("meta"):
        model = build_model(CASES[name])
    own = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")  # BatchNorm's counter: a frozen one has none
    }
    assert own == official
