"""Trains the sample model from scratch: ``python -m samples.street.train`` (continues where it was stopped)."""

import argparse
import copy
import csv
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from proscale_deploy.core.types import Size
from proscale_deploy.export.config import load_config
from proscale_deploy.export.model import MaskFormer, build_model
from samples.street.dataset import MAX_SEGMENTS, VALIDATION_SEEDS, Cache
from samples.street.loss import Targets, set_loss
from samples.street.validation import cached_frames, panoptic_scores, torch_network
from samples.street.world import CLASSES

FOLDER = Path(__file__).parent
SIZE: Size = (192, 320)
SMALL_SIZE: Size = (128, 224)
"""The first part of the training sees smaller pictures: most is learnt there, at less than half the price."""
BATCH = 8
SEED = 20261122
LEARNING_RATE, WEIGHT_DECAY, WARMUP, CLIP_NORM = 6e-4, 0.05, 300, 1.0
AVERAGE = 0.998
"""Per step, of the averaged weights that are kept in the end."""
COLUMNS = ("iteration", "minutes", "learning_rate", "loss", "class", "mask", "dice", "pq", "pq_things", "pq_stuff")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--iterations", type=int, default=9000)
    options.add_argument("--small", type=float, default=0.6, help="share of the iterations on small pictures")
    options.add_argument("--frames", type=int, default=10000, help="training pictures, one street each")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--workers", type=int, default=1, help="processes that render missing pictures")
    options.add_argument("--validate", type=int, default=500, help="iterations between validations")
    options.add_argument("--output", type=Path, default=Path("runs/street"))
    train(options.parse_args())


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    torch.manual_seed(SEED)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = load_config(FOLDER / "street.yaml")
    model = build_model(config.model).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(_groups(model), lr=LEARNING_RATE, fused=True)

    held = Cache(options.output / "validation", VALIDATION_SEEDS, SIZE)
    cache = Cache(options.output / "train", range(options.frames), SIZE)
    pool, _ = cache.start(options.workers)

    state_path, log_path = options.output / "state.pth", options.output / "training_log.csv"
    done, spent = 0, 0.0
    if state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done, spent = state["iteration"], state["seconds"]
    else:
        log_path.write_text(",".join(COLUMNS) + "\n")

    started, sums, since = time.monotonic(), np.zeros(4), time.monotonic()
    small_until = int(options.small * options.iterations)
    for iteration, image, targets in _batches(cache, done, options.iterations, small_until):
        rate = _rate(iteration, options.iterations)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = step(model, optimizer, image.to(device), Targets(targets.classes.to(device), targets.masks.to(device)))
        _follow(average, model, min(AVERAGE, (iteration + 1) / (iteration + 10)))
        sums += losses

        count = iteration + 1
        if count % 50 == 0:
            speed = 50 / (time.monotonic() - since)
            left = (options.iterations - count) / speed / 60
            total, classes, masks, dice = sums / 50
            print(
                f"{count}/{options.iterations} {tuple(image.shape[2:])} loss {total:.2f} class {classes:.3f} "
                f"mask {masks:.3f} dice {dice:.3f} lr {rate:.1e} {speed:.2f} it/s, {left:.0f} min left",
                flush=True,
            )
            means, sums, since = sums / 50, np.zeros(4), time.monotonic()
        if count % options.validate == 0 or count == options.iterations:
            seconds = spent + time.monotonic() - started
            scores = panoptic_scores(torch_network(average, config.input), cached_frames(held), config.thresholds)
            values = [count, seconds / 60, rate, *means, scores.all.pq, scores.things.pq, scores.stuff.pq]
            with log_path.open("a", newline="") as log:
                csv.writer(log).writerow([f"{value:.5g}" for value in values])
            print(f"validation: {_line(scores)}", flush=True)
            state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            _save({**state, "iteration": count, "seconds": seconds}, state_path)
            since = time.monotonic()
    pool.terminate()
    final = {name: value.half() if value.is_floating_point() else value for name, value in average.state_dict().items()}
    _save({"model": final, "iteration": options.iterations}, options.output / "street_proscale.pth")


def step(model: MaskFormer, optimizer: torch.optim.Optimizer, image: Tensor, targets: Targets) -> NDArray[np.float64]:
    """One update; returns total, class, mask and dice loss."""
    outputs = model.layer_outputs(image)
    class_logits = torch.stack([c for c, _ in outputs])
    mask_logits = torch.stack([m.flatten(2) for _, m in outputs])
    losses = set_loss(class_logits, mask_logits, targets)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return np.array([float(v.detach()) for v in (losses.total, losses.classification, losses.mask, losses.dice)])


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices and kernels decay; biases, norms and embeddings do not."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    decay = [p for p in model.parameters() if p.ndim > 1 and id(p) not in embeddings]
    rest = [p for p in model.parameters() if p.ndim <= 1 or id(p) in embeddings]
    return [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]


def _rate(iteration: int, iterations: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth."""
    share = min(1.0, iteration / iterations)
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    return LEARNING_RATE * min(1.0, (iteration + 1) / WARMUP) * (0.01 + 0.99 * cosine)


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Exponential moving average of weights and running statistics."""
    pairs = [(a, m) for a, m in zip(average.state_dict().values(), model.state_dict().values(), strict=True)]
    floats = [(a, m) for a, m in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [m for _, m in floats], 1 - keep)


def _batches(cache: Cache, first: int, last: int, small_until: int) -> Iterator[tuple[int, Tensor, Targets]]:
    """Batches ``first`` to ``last``, each made from its own number, so that a continued run sees the same ones."""
    with ThreadPoolExecutor(1) as executor:
        coming = executor.submit(load_batch, cache, first, SMALL_SIZE if first < small_until else SIZE)
        for iteration in range(first, last):
            image, targets = coming.result()
            following = SMALL_SIZE if iteration + 1 < small_until else SIZE
            coming = executor.submit(load_batch, cache, iteration + 1, following)
            yield iteration, image, targets


def load_batch(cache: Cache, iteration: int, size: Size) -> tuple[Tensor, Targets]:
    """Random pictures, half of them mirrored: (B, 3, H, W) normalised, and their segments at a quarter of the size."""
    rng = np.random.default_rng((SEED, iteration))
    ready = np.flatnonzero(cache.ready)
    while len(ready) < min(len(cache.ready), 64):
        time.sleep(1)
        ready = np.flatnonzero(cache.ready)
    height, width = size
    images = np.zeros((BATCH, height, width, 3), np.uint8)
    classes = np.full((BATCH, MAX_SEGMENTS), -1, np.int64)
    masks = np.zeros((BATCH, MAX_SEGMENTS, height // 4, width // 4), np.float32)
    longest = 0
    for row, index in enumerate(rng.choice(ready, BATCH, replace=False).tolist()):
        image, ids = cache.images[index], cache.maps[index]
        flip = rng.random() < 0.5
        images[row] = cv2.resize(image[:, ::-1] if flip else image, (width, height), interpolation=cv2.INTER_AREA)
        count = int((cache.classes[index] >= 0).sum())
        classes[row, :count] = cache.classes[index, :count]
        for segment in range(count):
            full = (ids == segment).view(np.uint8) * np.uint8(255)
            mask = cv2.resize(full, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
            masks[row, segment] = (mask[:, ::-1] if flip else mask) / np.float32(255)
        longest = max(longest, count)
    image = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    image = ((image - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)
    return image, Targets(torch.from_numpy(classes[:, :longest]), torch.from_numpy(masks[:, :longest]).flatten(2))


_MEAN = torch.tensor([123.675, 116.280, 103.530]).view(3, 1, 1)
_STD = torch.tensor([58.395, 57.120, 57.375]).view(3, 1, 1)


def _save(content: dict[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def _line(scores: Any) -> str:
    per_class = ", ".join(
        f"{info.name} {score.pq:.0f} ({score.sq:.0f}x{score.rq:.0f})"
        for info, score in zip(CLASSES, scores.per_class, strict=True)
    )
    return f"PQ {scores.all.pq:.1f}, things {scores.things.pq:.1f}, stuff {scores.stuff.pq:.1f}; {per_class}"


if __name__ == "__main__":
    main()
