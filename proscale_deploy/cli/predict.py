"""``predict``: segment images or a video, draw the results and save them."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from proscale_deploy.cli.options import model_argument, task_option
from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import Task

if TYPE_CHECKING:
    from proscale_deploy.runtime.save import Format
    from proscale_deploy.runtime.source import Frame, Source


@click.command()
@model_argument
@click.argument("source")
@task_option
@click.option(
    "--output",
    default="predictions",
    help="An image or video file, or a folder, which is made.",
)
@click.option(
    "--save",
    "formats",
    type=click.Choice(["json", "png", "npz"]),
    multiple=True,
    help="Save the results too: as COCO results with RLE masks (json), as id maps with COCO's panoptic JSON (png), "
    "as arrays (npz). Can be given several times.",
)
def predict(model: Path, source: str, task: Task | None, output: str, formats: tuple["Format", ...]) -> None:
    """Segment SOURCE with MODEL and draw the results.

    SOURCE is an image, a folder of images, a glob in quotes, or a video.

    \b
      proscale-deploy predict model.onnx street.jpg --output segmented.jpg
      proscale-deploy predict model.onnx clip.mp4 --output segmented.mp4
      proscale-deploy predict model.onnx images/ --task instance --save json
    """
    from proscale_deploy.runtime.draw import render
    from proscale_deploy.runtime.image import IMAGE_SUFFIXES
    from proscale_deploy.runtime.save import ResultWriter
    from proscale_deploy.runtime.segmenter import Segmenter
    from proscale_deploy.runtime.sink import open_sink, results_folder
    from proscale_deploy.runtime.source import VIDEO_SUFFIXES, open_source

    is_picture = model.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    if is_picture or (source.endswith(".onnx") and model.suffix != ".onnx"):
        command = shlex.join(["proscale-deploy", "predict", source, str(model)])
        raise InputError(f"{model} and {source}: swapped? MODEL comes first: {command}")
    stages = _Stages()
    with open_source(source) as frames:
        sink, folder = open_sink(output, frames), results_folder(output)
        segmenter = Segmenter.open(model)
        task, classes = segmenter.check_task(task), segmenter.manifest.classes
        click.echo(f"{model}: {segmenter.manifest.architecture}, {task}, on {segmenter.session.name}")
        try:
            with segmenter, sink, ResultWriter(folder, formats, task, classes) as results:
                for frame in stages.read(frames):
                    (result,), timings = segmenter.timed([frame.image], task)
                    stages.add("preprocess", timings.preprocess)
                    stages.add("inference", timings.inference)
                    stages.add("postprocess", timings.postprocess)
                    with stages.timed("draw"):
                        image = render(frame.image, result, classes)
                    with stages.timed("write"):
                        sink.write(frame, image)
                        results.add(frame, result)
        except KeyboardInterrupt as stop:
            kept = [f"kept {sink.path} ({_frames(sink.written)})"] if sink.written else []
            raise type(stop)(*kept) from None

    stages.print_summary(sink.written)
    if sink.written:
        click.echo(f"wrote {sink.path}" + (f" and results to {folder}/" if formats else ""))
    for warning in frames.warnings:
        click.echo(f"warning: {warning}", err=True)
    for skipped in frames.skipped:
        click.echo(f"error: {skipped}", err=True)
    if frames.skipped:
        click.echo(f"error: {len(frames.skipped)} of {frames.length} images could not be read", err=True)
        raise click.exceptions.Exit(1)


def _frames(count: int) -> str:
    return "1 frame" if count == 1 else f"{count} frames"


class _Stages:
    """Seconds by stage, in the order in which the stages are first met."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._start = perf_counter()

    def add(self, stage: str, seconds: float) -> None:
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.add(stage, perf_counter() - start)

    def read(self, source: "Source") -> Iterator["Frame"]:
        """The frames of the source, behind a progress bar where there is a terminal; the clock starts here."""
        iterator = iter(source)
        self._start = perf_counter()
        with click.progressbar(length=source.length or 0, label="segmenting", show_pos=True) as bar:
            while True:
                with self.timed("read"):
                    frame = next(iterator, None)
                if frame is None:
                    return
                yield frame
                bar.update(1)

    def print_summary(self, frames: int) -> None:
        total = perf_counter() - self._start
        if frames:
            click.echo(f"{_frames(frames)} in {total:.1f} s, {frames / total:.2f} per second; milliseconds per frame:")
            for stage, seconds in self._seconds.items():
                click.echo(f"  {stage:<12}{1000 * seconds / frames:9.1f}")
