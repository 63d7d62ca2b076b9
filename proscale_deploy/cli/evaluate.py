"""``evaluate``: a model against a data set whose truth is known."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from proscale_deploy.cli.options import SIZE, model_argument
from proscale_deploy.cli.stations import check_weights_options, open_station, station_options
from proscale_deploy.core.errors import MissingDependency
from proscale_deploy.core.files import check_not_input, check_output, replacing
from proscale_deploy.core.types import Result, Size, Task

if TYPE_CHECKING:
    from proscale_deploy.export.datasets import DatasetKind
    from proscale_deploy.export.evaluate import Prediction
    from proscale_deploy.export.journal import Journal
    from proscale_deploy.runtime.session import Session

_DATASETS = ("coco-panoptic", "coco-instance", "ade20k", "cityscapes", "folder")


@click.command()
@model_argument
@click.option("--dataset", "kind", type=click.Choice(_DATASETS), required=True, help="The layout of the annotations.")
@click.option("--images", type=click.Path(path_type=Path), required=True, help="The folder of the images.")
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    required=True,
    help="Their truth: coco-*: the JSON; ade20k, cityscapes: the folder of label maps, or the panoptic JSON; folder: "
    "a folder of panoptic.json and panoptic/*.png (COCO's format), or of classes.json and semantic/*.png (255: void).",
)
@station_options
@click.option("--size", type=SIZE, help="With --config: the network's input.  [default: as for export]")
@click.option("--output", type=click.Path(path_type=Path), default="evaluation.json", help="The results, as JSON.")
def evaluate(
    model: Path,
    kind: "DatasetKind",
    images: Path,
    annotations: Path,
    config: Path | None,
    class_file: Path | None,
    size: Size | None,
    output: Path,
) -> None:
    """Measure MODEL on a data set: PQ, mIoU, mask AP, and latency.

    MODEL is an exported file, or trained weights, which PyTorch runs with their YAML.

    What the model was trained for and the annotations can judge is measured. A run that was stopped goes on where it
    was when the same command is given again.

    \b
      proscale-deploy evaluate model.onnx --dataset coco-panoptic --images val2017 \\
          --annotations annotations/panoptic_val2017.json
      proscale-deploy evaluate model.onnx --dataset cityscapes --images leftImg8bit/val --annotations gtFine/val
    """
    check_not_input([output], [path for path in (model, annotations, config, class_file) if path])
    check_output(output)
    check_weights_options((model,), {"--config": config, "--classes": class_file, "--size": size})
    try:
        from proscale_deploy.export.datasets import match_classes, open_dataset
        from proscale_deploy.export.evaluate import Tally, common_tasks
        from proscale_deploy.export.evaluate import evaluate as measure
        from proscale_deploy.export.journal import Journal
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "a package", "export", "proscale-deploy evaluate") from error
    dataset = open_dataset(kind, images, annotations)
    with open_station(model, config, class_file, size) as session:
        manifest = session.manifest
        tasks = common_tasks(manifest.thresholds.tasks, dataset)
        class_of = match_classes(manifest.classes, dataset.categories, things_only=set(tasks) == {"instance"})
        tally = Tally(manifest.classes, tasks)
        facts = {
            "model": {
                "file": str(model),
                "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
                "architecture": manifest.architecture,
                "precision": manifest.precision,
                "engine": session.name,
                "version": manifest.version,
            },
            "dataset": {"kind": kind, "images": str(images), "annotations": str(annotations)},
            "thresholds": dataclasses.asdict(manifest.thresholds),
        }
        key = {
            "model": [facts["model"]["sha256"], json.loads(manifest.to_json())],
            "engine": session.name,
            "data set": [kind, dataset.fingerprint],
        }

        def predict(path: Path) -> "Prediction":
            return _predict(session, path, tasks)

        count = len(dataset.pictures)
        click.echo(f"{model}: {manifest.architecture}, {manifest.precision}, on {session.name}")
        click.echo(f"{annotations}: {count} pictures, {len(dataset.categories)} classes; measuring {', '.join(tasks)}")
        with (
            Journal(output.with_name(f"{output.name}.partial"), key) as journal,
            click.progressbar(length=count, label="evaluating", show_pos=True) as bar,
        ):
            _tell_start(journal, count)
            try:
                result = measure(dataset, class_of, tally, predict, journal, lambda: bar.update(1))
            except KeyboardInterrupt as stop:
                kept = f"{bar.pos} of {count} pictures are kept in {journal.path}; the same command goes on from there"
                raise type(stop)(*[kept] * (bar.pos > 0)) from None
        scores = {**facts, "pictures": result.pictures, "latency": result.latency, **result.scores}
        with replacing(output) as temporary:
            temporary.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
        journal.discard()
    _print(scores)
    click.echo(f"\nwrote {output}, with the figures of every class")


def _predict(session: "Session", path: Path, tasks: Sequence[Task]) -> "Prediction":
    """One run of the network, and the results of all ``tasks`` from it."""
    from proscale_deploy.export.evaluate import Prediction
    from proscale_deploy.runtime.image import read_image
    from proscale_deploy.runtime.postprocess import postprocess
    from proscale_deploy.runtime.preprocess import preprocess

    frame, manifest = read_image(path), session.manifest
    times = [perf_counter()]
    image, placement = preprocess(frame, manifest.input)
    times.append(perf_counter())
    (raw,) = session.run(image[None])
    times.append(perf_counter())
    results: dict[Task, Result] = {}
    for task in tasks:
        results[task] = postprocess(raw, placement, manifest.classes, manifest.thresholds, task)
        times.append(perf_counter())
    stages = ("preprocess", "inference", *tasks)
    return Prediction(results, {s: end - start for s, start, end in zip(stages, times, times[1:], strict=False)})


def _tell_start(journal: "Journal", count: int) -> None:
    if journal.changed:
        changed = " and ".join(journal.changed)
        click.echo(f"{journal.path} is of another run (other {changed}): starting anew")
    elif journal.entries:
        click.echo(f"{journal.path} holds {len(journal.entries)} of {count} pictures: going on from there")


def _print(scores: dict[str, Any]) -> None:
    if "panoptic" in scores:
        click.echo(f"\n  {'panoptic':<12}{'PQ':>8}{'SQ':>8}{'RQ':>8}")
        for name, score in scores["panoptic"].items():
            click.echo(f"  {name:<12}" + "".join(_figure(score[figure]) for figure in ("pq", "sq", "rq")))
    for task, title in (("instance", "instances"), ("semantic", "semantic")):
        if task in scores:
            names = {"miou": "mIoU", "pixel_accuracy": "pixels"}
            click.echo(f"\n  {title:<12}" + "".join(f"{names.get(name, name):>8}" for name in scores[task]))
            click.echo(" " * 14 + "".join(map(_figure, scores[task].values())))
    click.echo(f"\n  {'milliseconds':<12}{'p50':>8}{'p90':>8}")
    for stage, latency in scores["latency"].items():
        click.echo(f"  {stage:<12}{latency['p50']:8.1f}{latency['p90']:8.1f}")


def _figure(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.2f}"
