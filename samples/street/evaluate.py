"""PQ, mIoU and AP on 200 streets that no training saw: ``python -m samples.street.evaluate [MODEL.onnx]``.

Without an argument the checkpoint is run by PyTorch; with one, the exported file by the runtime.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import cv2
import torch

from proscale_deploy.core.types import Panoptic, Size, Thresholds
from proscale_deploy.export.checkpoint import load_state_dict, load_weights
from proscale_deploy.export.config import load_config
from proscale_deploy.export.datasets import Truth
from proscale_deploy.export.evaluate import Tally
from proscale_deploy.export.model import build_model
from proscale_deploy.runtime import Session, open_session, postprocess, preprocess
from samples.street.dataset import HELD_OUT_SEEDS, frame_time
from samples.street.validation import LabelledFrame, Network, torch_network
from samples.street.world import CLASSES, Scene

FOLDER = Path(__file__).parent


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", type=Path, nargs="?", help="exported file; default: the checkpoint, by PyTorch")
    options.add_argument("--weights", type=Path, default=FOLDER / "street_proscale.pth")
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--output", type=Path, help="write the results as JSON")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    cv2.setNumThreads(1)
    config = load_config(FOLDER / "street.yaml")
    if chosen.model is None:
        model = build_model(config.model)
        load_weights(model, load_state_dict(chosen.weights))
        network = torch_network(model, config.input)
    else:
        network = session_network(open_session(chosen.model))
    size = config.input.height, config.input.width
    results = measure(network, held_out_frames(size), config.thresholds)
    results["measured"] = {
        "seeds": [HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.stop - 1],
        "size": list(size),
        "by": "ONNX Runtime" if chosen.model else "PyTorch",
        "command": "python -m samples.street.evaluate" + (f" {chosen.model.name}" if chosen.model else ""),
    }
    text = json.dumps(results, indent=2)
    print(text)
    if chosen.output:
        partial = chosen.output.with_suffix(".partial")
        partial.write_text(text + "\n")
        os.replace(partial, chosen.output)


def session_network(session: Session) -> Network:
    """An exported file."""

    def run(frame: Any) -> Any:
        image, placement = preprocess(frame, session.manifest.input)
        return session.run(image[None])[0], placement

    return run


def held_out_frames(size: Size, seeds: Sequence[int] = HELD_OUT_SEEDS) -> Iterator[LabelledFrame]:
    """One moment of every held-out street, with a progress bar."""
    with click.progressbar(seeds, label="streets", file=sys.stderr) as progress:
        for seed in progress:
            image, ids, segments = Scene(seed).frame(frame_time(seed), size)
            yield LabelledFrame(image, Panoptic(ids, segments))


def measure(network: Network, frames: Iterator[LabelledFrame], thresholds: Thresholds) -> dict[str, Any]:
    """All metrics of a network, in percent; see :meth:`~proscale_deploy.export.evaluate.Tally.scores`."""
    tally = Tally(CLASSES, thresholds.tasks)
    for frame in frames:
        raw, placement = network(frame.image)
        results = {task: postprocess(raw, placement, CLASSES, thresholds, task) for task in thresholds.tasks}
        tally.add(results, Truth(frame.truth))
    return tally.scores()


if __name__ == "__main__":
    main()
