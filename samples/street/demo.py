"""The whole way once: ``python -m samples.street.demo``.

Exports the trained sample model, compares the file with PyTorch, segments a video the model never saw, streams it to a
browser, and puts video, pictures and figures on one page.
"""

import argparse
import base64
import html
import shlex
import string
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from proscale_deploy.core.types import ClassInfo, Panoptic, RawOutput
from proscale_deploy.export.checkpoint import load_state_dict, load_weights
from proscale_deploy.export.config import Config, load_config
from proscale_deploy.export.metrics import PanopticQuality
from proscale_deploy.export.model import MaskFormer, build_model
from proscale_deploy.runtime import Segmenter, cpu_name, cpus, overlay, postprocess, preprocess
from samples.street.clip import CLIP_FPS, CLIP_SEED, CLIP_SIZE, write_clip
from samples.street.stream_page import photograph
from samples.street.world import Scene

HERE = Path(__file__).parent
CONFIG, WEIGHTS, CLASSES = HERE / "street.yaml", HERE / "street_proscale.pth", HERE / "classes.json"
SECONDS = 8.0
COMPARED = 16
"""Frames of the clip on which file and PyTorch are compared."""
EVIDENCE = f"one street, {COMPARED} frames of the clip; on 200 streets: samples/street/README.md"
"""What the figures of quality are worth."""
AGREEMENT = 99.0
"""PQ of the file's results, taking PyTorch's as the truth, below which something is wrong."""


_STREAM = """
<h2>A running stream, in a browser</h2>
<figure>
  <img src="$picture" alt="The page of a running stream: live picture, figures, switches, plots, classes">
  <figcaption>The clip as a camera would give it, and what <code>--serve</code> shows of it.</figcaption>
</figure>
"""


@dataclass(frozen=True)
class Comparison:
    """Exported file against PyTorch, on the same frames."""

    class_errors: NDArray[np.float64]
    """Relative L2 error of each frame's class logits."""
    mask_errors: NDArray[np.float64]
    """Relative L2 error of each frame's mask logits. A frame stands out where a logit lies so near to the threshold of
    an attention mask that rounding decides on which side: neither PyTorch nor the file is wrong then."""
    agreement: float
    """PQ of the file's results, those of PyTorch taken as the truth."""
    torch_pq: float
    """PQ of PyTorch's results against the world's exact truth."""
    file_pq: float
    milliseconds: dict[str, NDArray[np.float64]]
    """Of the file, by stage, per frame."""
    picture: NDArray[np.uint8]
    """The middle one of the frames, its truth and both results."""
    picture_time: float
    """Seconds."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", type=Path, default=Path("demo"))
    options.add_argument("--seconds", type=float, default=SECONDS, help="length of the clip")
    arguments = options.parse_args()
    demo(arguments.output, arguments.seconds)


def demo(folder: Path, seconds: float) -> None:
    """Write model, clip, overlay video, pictures and page to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    folder, config, weights, classes = map(_relative, (folder, CONFIG, WEIGHTS, CLASSES))
    model, clip, video = folder / "street.onnx", folder / "clip.mp4", folder / "street.webm"
    stream = folder / "stream_page.png"
    commands = [
        ["export", "--config", config, "--weights", weights, "--classes", classes, "--output", model],
        ["predict", model, clip, "--task", "panoptic", "--output", video],
        ["predict", model, clip, "--serve", "8080"],
    ]
    _run(commands[0])
    print(f"\npainting {seconds:g} s of a street the model never saw: {clip}", flush=True)
    write_clip(clip, seconds)
    _run(commands[1])
    print("\nstreaming the clip to a browser, for a picture of the page", flush=True)
    problem = photograph(model, clip, stream)
    print(f"\ncomparing {model} with PyTorch on {COMPARED} frames", flush=True)
    compared = compare(model, np.linspace(0, seconds, COMPARED, endpoint=False))
    picture, page = folder / "picture.jpg", folder / "index.html"
    cv2.imwrite(str(picture), compared.picture)
    write_page(page, video, model, compared, stream, [_typed(command) for command in commands])
    look = f"{_typed(commands[2])}  and open http://127.0.0.1:8080/"
    print(
        f"\nPanoptic quality of the file's results, PyTorch's taken as the truth: {compared.agreement:.2f}\n"
        f"Against the exact truth: file {compared.file_pq:.2f}, PyTorch {compared.torch_pq:.2f}\n"
        f"({EVIDENCE})\n\n"
        f"  video    {video}\n  picture  {picture}\n  summary  {page}\n"
        f"  stream   {f'not shown ({problem})' if problem else stream}; to see it:  {look}"
    )
    if compared.agreement < AGREEMENT:
        sys.exit(f"error: file and PyTorch agree only to {compared.agreement:.2f} PQ, expected at least {AGREEMENT:g}")


def _run(arguments: Sequence[object]) -> None:
    """A command of the project, shown as one would type it."""
    print(f"\n$ {_typed(arguments)}", flush=True)
    command = [sys.executable, "-m", "proscale_deploy", *map(str, arguments)]
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


def _typed(arguments: Sequence[object]) -> str:
    program = _relative(Path(sysconfig.get_path("scripts")) / "proscale-deploy")
    return shlex.join(map(str, [program, *arguments]))


def _relative(path: Path) -> Path:
    """As one would type it in the current folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def compare(path: Path, times: Sequence[float] | NDArray[np.float64]) -> Comparison:
    """Run the file at ``path`` and PyTorch on the clip's frames at ``times`` (seconds)."""
    config = load_config(CONFIG)
    network = build_model(config.model).eval()
    load_weights(network, load_state_dict(WEIGHTS))
    scene = Scene(CLIP_SEED)
    class_errors, mask_errors, stages, pictures = [], [], [], []
    with Segmenter.open(path) as segmenter, click.progressbar(times, label="comparing") as bar:
        classes = segmenter.manifest.classes
        agreement, torch_quality, file_quality = (PanopticQuality(classes) for _ in range(3))
        for time in bar:
            frame, ids, segments = scene.frame(float(time), CLIP_SIZE)
            truth = Panoptic(ids, segments)
            (found,), timings = segmenter.timed([frame], "panoptic")
            assert isinstance(found, Panoptic)
            stages.append((timings.preprocess, timings.inference, timings.postprocess, timings.total))
            expected, expected_raw = _torch(network, config, classes, frame)
            raw = segmenter.session.run(preprocess(frame, config.input)[0][None])[0]
            class_errors.append(_relative_error(raw.class_logits, expected_raw.class_logits))
            mask_errors.append(_relative_error(raw.mask_logits, expected_raw.mask_logits))
            agreement.add(found, expected)
            torch_quality.add(expected, truth)
            file_quality.add(found, truth)
            pictures.append([frame, *(overlay(frame, result, classes) for result in (truth, expected, found))])
    middle = len(times) // 2
    titles = ("frame", "exact truth", "PyTorch", "exported file")
    a, b, c, d = map(_titled, pictures[middle], titles)
    names = ("preprocess", "inference", "postprocess", "total")
    return Comparison(
        np.array(class_errors),
        np.array(mask_errors),
        agreement.result().all.pq,
        torch_quality.result().all.pq,
        file_quality.result().all.pq,
        {name: 1000 * values for name, values in zip(names, np.array(stages).T, strict=True)},
        np.vstack([np.hstack([a, b]), np.hstack([c, d])]),
        float(times[middle]),
    )


def _torch(
    network: MaskFormer, config: Config, classes: tuple[ClassInfo, ...], frame: NDArray[np.uint8]
) -> tuple[Panoptic, RawOutput]:
    image, placement = preprocess(frame, config.input)
    with torch.inference_mode():
        class_logits, mask_logits = network(torch.from_numpy(image)[None])
    raw = RawOutput(class_logits[0].numpy(), mask_logits[0].numpy())
    result = postprocess(raw, placement, classes, config.thresholds, "panoptic")
    assert isinstance(result, Panoptic)
    return result, raw


def _titled(image: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """``image`` (H, W, 3) with a title in its upper left corner."""
    titled = image.copy()
    (width, height), _ = cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, 1, 2)
    cv2.rectangle(titled, (0, 0), (width + 24, height + 24), (24, 24, 24), cv2.FILLED)
    cv2.putText(titled, title, (12, height + 12), cv2.FONT_HERSHEY_SIMPLEX, 1, (255, 255, 255), 2, cv2.LINE_AA)
    return titled


def _relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _spread(errors: NDArray[np.float64]) -> str:
    return f"{np.median(errors):.1e} / {errors.max():.1e}"


def write_page(
    path: Path, video: Path, model: Path, compared: Comparison, stream: Path, commands: Sequence[str]
) -> None:
    """One HTML file that needs nothing but the video, and the picture of the stream's page where there is one."""
    with Segmenter.open(model) as segmenter:
        manifest, session = segmenter.manifest, segmenter.session.name
    parity = {
        "class logits, relative L2 error, median and greatest": _spread(compared.class_errors),
        "mask logits, relative L2 error, median and greatest": _spread(compared.mask_errors),
        "agreement (PQ, PyTorch as the truth)": f"{compared.agreement:.2f}",
        "PQ against the exact truth, PyTorch": f"{compared.torch_pq:.1f}",
        "PQ against the exact truth, exported file": f"{compared.file_pq:.1f}",
    }
    encoded, jpeg = cv2.imencode(".jpg", compared.picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert encoded
    spec = manifest.input
    page = string.Template((HERE / "page.html").read_text()).substitute(
        architecture=html.escape(manifest.architecture),
        facts=f"{model.name}, {model.stat().st_size / 1e6:.1f} MB, {manifest.precision}, network input "
        f"{spec.height}x{spec.width}, clip {CLIP_SIZE[0]}x{CLIP_SIZE[1]} at {CLIP_FPS} frames per second, "
        f"proscale-deploy {manifest.version}",
        video=video.name,
        stream=string.Template(_STREAM).substitute(picture=stream.name) if stream.exists() else "",
        legend="".join(
            f'<span><i style="background:rgb{info.color}"></i>{html.escape(info.name)}</span>'
            for info in manifest.classes
        ),
        picture=base64.b64encode(jpeg.tobytes()).decode(),
        picture_time=f"{compared.picture_time:g}",
        parity="".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in parity.items()),
        evidence=EVIDENCE,
        timings="".join(
            f"<tr><td>{name}</td><td>{np.median(values):.1f}</td><td>{np.percentile(values, 90):.1f}</td></tr>"
            for name, values in compared.milliseconds.items()
        ),
        machine=html.escape(f"{COMPARED} frames, {session}, {cpu_name()}, {cpus()} CPUs"),
        commands=html.escape("\n".join(commands)),
    )
    path.write_text(page)


if __name__ == "__main__":
    main()
