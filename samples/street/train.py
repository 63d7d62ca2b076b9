"""Trains the sample model from scratch: ``python -m samples.street.train`` (continues where it was stopped)."""

import argparse
import collections
import copy
import csv
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.multiprocessing
from numpy.typing import NDArray
from torch import Tensor, distributed, nn

from proscale_deploy.core.types import Size
from proscale_deploy.export.config import load_config
from proscale_deploy.export.metrics import PanopticScores
from proscale_deploy.export.model import MaskFormer, build_model
from samples.street.dataset import MAX_SEGMENTS, VALIDATION_SEEDS, Cache
from samples.street.loss import Targets, set_loss
from samples.street.validation import cached_frames, panoptic_scores, torch_network
from samples.street.world import CLASSES

FOLDER = Path(__file__).parent
SIZE: Size = (192, 320)
SMALL_SIZE: Size = (128, 224)
"""The first part of the training sees random parts of the pictures: most is learnt there, at half the price."""
BATCH = 8
SEED = 20261122
LEARNING_RATE, WEIGHT_DECAY, WARMUP, CLIP_NORM = 6e-4, 0.05, 300, 1.0
AVERAGE = 0.998
"""Per step, of the averaged weights that are kept in the end."""
COLUMNS = ("iteration", "minutes", "learning_rate", "loss", "class", "mask", "dice", "pq", "pq_things", "pq_stuff")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--iterations", type=int, default=9000)
    options.add_argument("--small", type=float, default=0.8, help="share of the iterations on small pictures")
    options.add_argument("--frames", type=int, default=10000, help="training pictures, one street each")
    options.add_argument("--replicas", type=int, help="processes that share a batch; default: one per core, or one GPU")
    options.add_argument("--validate", type=int, default=500, help="iterations between validations")
    options.add_argument("--output", type=Path, default=Path("runs/street"))
    chosen = options.parse_args()
    # Two threads of one process would wait for each other at every small operator; two processes do so once a batch.
    replicas = chosen.replicas or (1 if torch.cuda.is_available() else min(os.cpu_count() or 1, BATCH))
    chosen.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as meeting:
        torch.multiprocessing.spawn(train, (replicas, f"file://{meeting}/point", chosen), replicas)


def train(replica: int, replicas: int, meeting: str, options: argparse.Namespace) -> None:
    """Runs in ``replicas`` processes with equal weights; the first one reports and saves."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    distributed.init_process_group("gloo", init_method=meeting, rank=replica, world_size=replicas)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = load_config(FOLDER / "street.yaml")
    torch.manual_seed(SEED)
    model = build_model(config.model).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(_groups(model), lr=LEARNING_RATE, fused=True)
    cache = Cache(options.output / "train", range(options.frames), SIZE)
    if replica == 0:
        held = Cache(options.output / "validation", VALIDATION_SEEDS, SIZE)
        pool, _ = cache.start(workers=1)

    state_path, report = options.output / "state.pth", Report(options.output / "training_log.csv", options.iterations)
    done, spent = 0, 0.0
    if state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done, spent = state["iteration"], state["seconds"]

    started, small_until = time.monotonic(), int(options.small * options.iterations)
    for count, size in ((i + 1, SMALL_SIZE if i < small_until else SIZE) for i in range(done, options.iterations)):
        rate = _rate(count, options.iterations)
        for group in optimizer.param_groups:
            group["lr"] = rate
        image, targets = load_batch(cache, count, size, replica, replicas)
        losses = step(model, optimizer, image.to(device), Targets(targets.classes.to(device), targets.masks.to(device)))
        _follow(average, model, min(AVERAGE, count / (count + 9)))
        if replica == 0:
            report.add(count, losses, rate, size)
            if count % options.validate == 0 or count == options.iterations:
                seconds = spent + time.monotonic() - started
                network = torch_network(average, config.input)
                report.validated(count, seconds, panoptic_scores(network, cached_frames(held), config.thresholds))
                parts: dict[str, Any] = {"model": model, "average": average, "optimizer": optimizer}
                state = {name: part.state_dict() for name, part in parts.items()}
                save({**state, "iteration": count, "seconds": seconds}, state_path)
    if replica == 0:
        pool.terminate()
        weights = average.state_dict().items()
        half = {name: value.half() if value.is_floating_point() else value for name, value in weights}
        save({"model": half, "iteration": options.iterations}, options.output / "street_proscale.pth")
    distributed.destroy_process_group()


def step(model: MaskFormer, optimizer: torch.optim.Optimizer, image: Tensor, targets: Targets) -> NDArray[np.float64]:
    """One update from the gradients of all replicas; returns total, class, mask and dice loss of this one."""
    outputs = model.layer_outputs(image)
    class_logits = torch.stack([c for c, _ in outputs])
    mask_logits = torch.stack([m.flatten(2) for _, m in outputs])
    losses = set_loss(class_logits, mask_logits, targets)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        together = torch.cat([g.flatten() for g in gradients]) / distributed.get_world_size()
        distributed.all_reduce(together)
        for gradient, shared in zip(gradients, torch.split(together, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(shared.view_as(gradient))
    nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return np.array([float(v.detach()) for v in (losses.total, losses.classification, losses.mask, losses.dice)])


class Report:
    """Progress lines, and a log with one row per validation."""

    def __init__(self, path: Path, iterations: int) -> None:
        self._path, self._iterations = path, iterations
        self._recent: collections.deque[tuple[float, NDArray[np.float64]]] = collections.deque(maxlen=50)
        self._rate = 0.0

    def add(self, count: int, losses: NDArray[np.float64], rate: float, size: Size) -> None:
        """Take note of one step, and print every fiftieth."""
        self._recent.append((time.monotonic(), losses))
        self._rate = rate
        if count % 50 == 0 and len(self._recent) > 1:
            speed = (len(self._recent) - 1) / (self._recent[-1][0] - self._recent[0][0])
            left = (self._iterations - count) / speed / 60
            total, classes, masks, dice = self._means()
            print(
                f"{count}/{self._iterations} {size[0]}x{size[1]} loss {total:.2f} class {classes:.3f} mask {masks:.3f} "
                f"dice {dice:.3f} lr {rate:.1e} {speed:.2f} it/s, {left:.0f} min left",
                flush=True,
            )

    def validated(self, count: int, seconds: float, scores: PanopticScores) -> None:
        """Log and print one validation; the next speed is measured from here."""
        quality = (scores.all.pq, scores.things.pq, scores.stuff.pq)
        row = [count, seconds / 60, self._rate, *self._means(), *quality]
        fresh = not self._path.exists()
        with self._path.open("a", newline="") as log:
            csv.writer(log).writerows([COLUMNS] * fresh + [[f"{value:.5g}" for value in row]])
        classes = ", ".join(
            f"{info.name} {score.pq:.0f} ({score.sq:.0f}x{score.rq:.0f})"
            for info, score in zip(CLASSES, scores.per_class, strict=True)
        )
        print(f"PQ {quality[0]:.1f}, things {quality[1]:.1f}, stuff {quality[2]:.1f}: {classes}", flush=True)
        self._recent.clear()

    def _means(self) -> list[float]:
        return [float(v) for v in np.mean([losses for _, losses in self._recent], axis=0)]


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
    return LEARNING_RATE * min(1.0, iteration / WARMUP) * (0.01 + 0.99 * cosine)


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Exponential moving average of weights and running statistics."""
    pairs = [(a, m) for a, m in zip(average.state_dict().values(), model.state_dict().values(), strict=True)]
    floats = [(a, m) for a, m in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [m for _, m in floats], 1 - keep)


def load_batch(cache: Cache, iteration: int, size: Size, replica: int = 0, replicas: int = 1) -> tuple[Tensor, Targets]:
    """The share of a replica in a random batch, half of it mirrored: pictures (B, 3, H, W), normalised, and their
    segments at a quarter of the size. Made from the iteration's number, so that a continued run sees the same."""
    rng = np.random.default_rng((SEED, iteration))
    ready = np.flatnonzero(cache.ready)
    while len(ready) < min(len(cache.ready), 64):
        time.sleep(1)
        ready = np.flatnonzero(cache.ready)
    height, width = size
    chosen = rng.choice(ready, BATCH, replace=False)[replica::replicas].tolist()
    flips = (rng.random(BATCH) < 0.5)[replica::replicas].tolist()
    windows = [_window(rng, cache.size, size) for _ in range(BATCH)][replica::replicas]
    images = np.zeros((len(chosen), height, width, 3), np.uint8)
    classes = np.full((len(chosen), MAX_SEGMENTS), -1, np.int64)
    masks = np.zeros((len(chosen), MAX_SEGMENTS, height // 4, width // 4), np.float32)
    for row, (index, flip, window) in enumerate(zip(chosen, flips, windows, strict=True)):
        image, ids = cache.images[index][window], cache.maps[index][window]
        if flip:
            image, ids = image[:, ::-1], ids[:, ::-1]
        images[row] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        present = np.unique(ids)
        classes[row, : len(present)] = cache.classes[index, present]
        for place, segment in enumerate(present):
            full = (ids == segment).view(np.uint8) * np.uint8(255)
            mask = cv2.resize(full, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
            masks[row, place] = mask / np.float32(255)
    longest = int((classes >= 0).sum(axis=1).max())
    image = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    image = ((image - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)
    return image, Targets(torch.from_numpy(classes[:, :longest]), torch.from_numpy(masks[:, :longest]).flatten(2))


def _window(rng: np.random.Generator, full: Size, size: Size) -> tuple[slice, slice]:
    """A random part of the picture, between ``size`` and all of it."""
    zoom = rng.uniform(0, 1)
    height, width = (round(s + (f - s) * zoom) for f, s in zip(full, size, strict=True))
    top, left = rng.integers(0, full[0] - height + 1), rng.integers(0, full[1] - width + 1)
    return slice(top, top + height), slice(left, left + width)


_MEAN = torch.tensor([123.675, 116.280, 103.530]).view(3, 1, 1)
_STD = torch.tensor([58.395, 57.120, 57.375]).view(3, 1, 1)


def save(content: dict[str, Any], path: Path) -> None:
    """Write all or nothing."""
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, path)


if __name__ == "__main__":
    main()
