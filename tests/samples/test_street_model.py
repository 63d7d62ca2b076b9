"""The committed model is what its files say: small, loadable as an official checkpoint, and good on unseen streets."""

import json

import pytest
import torch

from proscale_deploy.export.checkpoint import load_state_dict, load_weights
from proscale_deploy.export.config import load_config
from proscale_deploy.export.model import build_model
from samples.street.dataset import HELD_OUT_SEEDS, VALIDATION_SEEDS
from samples.street.evaluate import FOLDER, held_out_frames, measure
from samples.street.validation import torch_network
from samples.street.world import CLASSES

WEIGHTS = FOLDER / "street_proscale.pth"


def test_checkpoint_is_small_and_in_the_official_format() -> None:
    assert WEIGHTS.stat().st_size < 8e6
    content = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    assert {"backbone.stem.conv1.weight", "sem_seg_head.predictor.class_embed.weight"} <= content["model"].keys()


def test_held_out_streets_were_never_trained_on() -> None:
    assert not set(HELD_OUT_SEEDS) & set(VALIDATION_SEEDS)
    assert min(HELD_OUT_SEEDS) > 100_000  # training counts up from 0


def test_model_is_as_good_as_recorded() -> None:
    config = load_config(FOLDER / "street.yaml")
    assert config.model.num_classes == len(CLASSES)
    model = build_model(config.model)
    load_weights(model, load_state_dict(WEIGHTS))
    found = measure(
        torch_network(model, config.input), held_out_frames((192, 320), HELD_OUT_SEEDS[:24]), config.thresholds
    )
    recorded = json.loads((FOLDER / "results.json").read_text())
    assert recorded["panoptic"]["all"]["pq"] >= 50
    assert recorded["measured"]["seeds"] == [HELD_OUT_SEEDS[0], HELD_OUT_SEEDS[-1]]
    # 24 of the 200 streets: the same, up to chance.
    assert found["panoptic"]["stuff"]["pq"] == pytest.approx(recorded["panoptic"]["stuff"]["pq"], abs=6)
    assert found["semantic"]["pixel_accuracy"] == pytest.approx(recorded["semantic"]["pixel_accuracy"], abs=3)
    assert found["panoptic"]["things"]["pq"] == pytest.approx(recorded["panoptic"]["things"]["pq"], abs=10)
