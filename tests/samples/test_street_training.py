"""The set loss against formulas and exhaustive search, and a step of training."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proscale_deploy.export.config import load_config
from proscale_deploy.export.model import build_model
from samples.street import train
from samples.street.dataset import Cache, frame_time
from samples.street.loss import Targets, bce_cost, dice_cost, match, set_loss, unsure_pixels
from samples.street.validation import cached_frames
from samples.street.world import Scene

LAYERS, BATCH, QUERIES, CLASSES, PIXELS = 2, 3, 5, 4, 12


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor, Targets]:
    generator = torch.Generator().manual_seed(1)
    class_logits = torch.randn(LAYERS, BATCH, QUERIES, CLASSES + 1, generator=generator, dtype=torch.float64)
    mask_logits = 2 * torch.randn(LAYERS, BATCH, QUERIES, PIXELS, generator=generator, dtype=torch.float64)
    classes = torch.tensor([[0, 3, 1], [2, -1, -1], [-1, -1, -1]])
    masks = torch.rand(BATCH, 3, PIXELS, generator=generator, dtype=torch.float64)
    return class_logits, mask_logits, Targets(classes, masks)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x)))


def bce(logits: NDArray[np.float64], mask: NDArray[np.float64]) -> float:
    p = sigmoid(logits)
    return float(-(mask * np.log(p) + (1 - mask) * np.log(1 - p)).mean())


def dice(logits: NDArray[np.float64], mask: NDArray[np.float64]) -> float:
    p = sigmoid(logits)
    return float(1 - (2 * (p * mask).sum() + 1) / (p.sum() + mask.sum() + 1))


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


def test_costs_are_the_formulas(case: tuple[torch.Tensor, torch.Tensor, Targets]) -> None:
    _, mask_logits, targets = case
    found_bce, found_dice = bce_cost(mask_logits, targets.masks), dice_cost(mask_logits, targets.masks)
    for layer, picture, query, segment in np.ndindex(LAYERS, BATCH, QUERIES, 3):
        logits, mask = mask_logits[layer, picture, query].numpy(), targets.masks[picture, segment].numpy()
        assert found_bce[layer, picture, query, segment].item() == pytest.approx(bce(logits, mask), rel=1e-12)
        assert found_dice[layer, picture, query, segment].item() == pytest.approx(dice(logits, mask), rel=1e-12)


def best_assignment(
    class_logits: NDArray[np.float64], mask_logits: NDArray[np.float64], classes: list[int], masks: NDArray[np.float64]
) -> dict[int, int]:
    """Query -> segment, by trying them all."""

    def price(queries: tuple[int, ...]) -> float:
        return sum(
            -2 * float(softmax(class_logits[q])[c]) + 5 * bce(mask_logits[q], m) + 5 * dice(mask_logits[q], m)
            for q, c, m in zip(queries, classes, masks, strict=True)
        )

    best = min(itertools.permutations(range(len(class_logits)), len(classes)), key=price)
    return {query: segment for segment, query in enumerate(best)}


def test_matching_and_loss_equal_exhaustive_search(case: tuple[torch.Tensor, torch.Tensor, Targets]) -> None:
    class_logits, mask_logits, targets = case
    pairs = match(class_logits, mask_logits, targets)
    total_class = total_bce = total_dice = 0.0
    for layer in range(LAYERS):
        weighted = weights = 0.0
        for picture in range(BATCH):
            classes = [c for c in targets.classes[picture].tolist() if c >= 0]
            masks = targets.masks[picture, : len(classes)].numpy()
            logits, shapes = class_logits[layer, picture].numpy(), mask_logits[layer, picture].numpy()
            best = best_assignment(logits, shapes, classes, masks)
            queries, segments = pairs[layer * BATCH + picture]
            assert dict(zip(queries.tolist(), segments.tolist(), strict=True)) == best
            for query in range(QUERIES):
                wanted, weight = (classes[best[query]], 1.0) if query in best else (CLASSES, 0.1)
                weighted -= weight * float(np.log(softmax(logits[query])[wanted]))
                weights += weight
            total_bce += sum(bce(shapes[q], masks[s]) for q, s in best.items()) / 4
            total_dice += sum(dice(shapes[q], masks[s]) for q, s in best.items()) / 4
        total_class += weighted / weights
    losses = set_loss(class_logits, mask_logits, targets, share=1.0)
    assert losses.classification.item() == pytest.approx(total_class, rel=1e-5)
    assert losses.mask.item() == pytest.approx(total_bce, rel=1e-5)
    assert losses.dice.item() == pytest.approx(total_dice, rel=1e-5)
    assert losses.total.item() == pytest.approx(2 * total_class + 5 * total_bce + 5 * total_dice, rel=1e-5)


def test_unsure_pixels_are_mostly_the_least_sure() -> None:
    torch.manual_seed(2)
    logits = torch.randn(50, 400).mul(3)
    points = unsure_pixels(logits, 0.25)
    assert points.shape == (50, 100)
    assert all(len(row.unique()) == 100 for row in points)
    rank = logits.abs().argsort(-1).argsort(-1).gather(1, points)
    # Of 400 pixels, 25 are drawn anywhere; the other 75 are the least sure of the rest.
    assert (rank < 75).float().sum(-1).mean() > 73
    assert rank.float().max() > 380
    assert torch.equal(unsure_pixels(logits, 1.0).sort(-1).values, torch.arange(400).expand(50, -1))


def test_pictures_without_segments(case: tuple[torch.Tensor, torch.Tensor, Targets]) -> None:
    class_logits, mask_logits, targets = case
    nothing = Targets(torch.full_like(targets.classes, -1), targets.masks)
    losses = set_loss(class_logits, mask_logits, nothing)
    assert losses.mask.item() == 0
    assert losses.dice.item() == 0
    assert losses.classification.item() > 0


SIZE = (64, 96)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setattr(train, "BATCH", 2)
    filled = Cache(tmp_path / "cache", range(2), SIZE)
    for index in range(2):
        filled.render(index)
    return filled


def test_cache_holds_the_world(cache: Cache) -> None:
    reopened = Cache(cache.folder, cache.seeds, SIZE)
    for seed, frame in zip(cache.seeds, cached_frames(reopened), strict=True):
        image, ids, segments = Scene(seed).frame(frame_time(seed), SIZE)
        np.testing.assert_array_equal(frame.image, image)
        assert [(s.class_id, s.area) for s in frame.truth.segments] == [(s.class_id, s.area) for s in segments]
        for ours, theirs in zip(frame.truth.segments, segments, strict=True):
            np.testing.assert_array_equal(frame.truth.map == ours.id, ids == theirs.id)


def test_masks_of_a_batch_share_out_every_pixel(cache: Cache) -> None:
    image, targets = train.load_batch(cache, 0, SIZE)
    assert image.shape == (2, 3, *SIZE)
    assert targets.masks.shape[2] == SIZE[0] * SIZE[1] // 16
    np.testing.assert_allclose(targets.masks.sum(1).numpy(), 1, atol=0.03)
    again, _ = train.load_batch(cache, 0, SIZE)
    assert torch.equal(image, again)
    part, shown = train.load_batch(cache, 0, (32, 64))
    assert part.shape == (2, 3, 32, 64)
    np.testing.assert_allclose(shown.masks.sum(1).numpy(), 1, atol=0.03)


def test_replicas_share_a_batch(cache: Cache) -> None:
    whole, targets = train.load_batch(cache, 5, SIZE)
    for replica in range(2):
        part, own = train.load_batch(cache, 5, SIZE, replica, replicas=2)
        assert torch.equal(part, whole[replica::2])
        segments = own.masks.shape[1]
        assert torch.equal(own.masks, targets.masks[replica::2, :segments])


def test_steps_reduce_the_loss(cache: Cache) -> None:
    torch.manual_seed(0)
    model = build_model(load_config(train.FOLDER / "street.yaml").model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    image, targets = train.load_batch(cache, 0, SIZE)
    totals = [train.step(model, optimizer, image, targets)[0] for _ in range(12)]
    assert np.isfinite(totals).all()
    assert totals[-1] < 0.75 * totals[0]
