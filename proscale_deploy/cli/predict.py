"""``predict``: segment images, videos or live streams, draw the results, save them, show them."""

import functools
import shlex
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proscale_deploy.cli.options import model_argument, task_option
from proscale_deploy.cli.stream_report import StatusLine, count, summary
from proscale_deploy.core.errors import DeployError, InputError
from proscale_deploy.core.types import Task

if TYPE_CHECKING:
    from proscale_deploy.runtime.streams.output import Output
    from proscale_deploy.runtime.streams.save import Format
    from proscale_deploy.runtime.streams.source import Source
    from proscale_deploy.runtime.streams.stream import Stream

_FOLDER = "predictions"
"""Where overlays go if nothing else is said, and results that belong to no file."""


def _one(context: click.Context, option: click.Parameter, sources: tuple[str, ...]) -> str:
    """The only one: of several, a shell made them of a glob."""
    if len(sources) > 1:
        raise click.UsageError("SOURCE is one; of many images give the folder, or the glob in quotes: 'images/*.png'")
    return sources[0]


@click.command()
@model_argument
@click.argument("source", callback=_one, nargs=-1, required=True, metavar="SOURCE")
@task_option
@click.option(
    "--output",
    "names",
    multiple=True,
    help="An image or video file, a folder, which is made, display://0 (a window), rtsp://HOST/PATH (a server that "
    "takes streams), or - (JSON lines on standard output). Can be given several times.  [default: predictions]",
)
@click.option("--serve", metavar="HOST:PORT", help="Show it on a page; PORT alone is for this machine only.")
@click.option(
    "--save",
    "formats",
    type=click.Choice(["json", "png", "npz"]),
    multiple=True,
    help="Save the results too: as COCO results with RLE masks (json), as id maps with COCO's panoptic JSON (png), "
    "as arrays (npz). Can be given several times.",
)
@click.option(
    "--raw",
    metavar="WIDTHxHEIGHT[@FPS]",
    help="What frames from a pipe are, as ffmpeg -f rawvideo -pix_fmt bgr24 writes them.",
)
def predict(
    model: Path,
    source: str,
    task: Task | None,
    names: tuple[str, ...],
    serve: str | None,
    formats: tuple["Format", ...],
    raw: str | None,
) -> None:
    """Segment SOURCE with MODEL and draw the results.

    SOURCE is an image, a folder of images, a glob in quotes, a video; a camera (/dev/video0, csi://0, with
    ?width=1280&height=720&fps=30 if wanted), a stream (rtsp://, http://); or - for frames from a pipe. Of what is live
    the newest frame is segmented until Ctrl-C; of what has an end, every frame.

    \b
      proscale-deploy predict model.onnx street.jpg --output segmented.jpg
      proscale-deploy predict model.onnx images/ --task instance --save json
      proscale-deploy predict model.engine /dev/video0 --serve 8080
      proscale-deploy predict model.engine rtsp://10.0.0.7/stream1 --output drive.mp4
      ffmpeg -i in.ts -f rawvideo -pix_fmt bgr24 - | proscale-deploy predict model.onnx - --raw 1280x720
    """
    from proscale_deploy.runtime.segmenter import Segmenter
    from proscale_deploy.runtime.streams.inputs import open_input
    from proscale_deploy.runtime.streams.outputs import open_output, serve_page
    from proscale_deploy.runtime.streams.raw import RawFormat
    from proscale_deploy.runtime.streams.save import ResultWriter
    from proscale_deploy.runtime.streams.sink import Sink, results_folder
    from proscale_deploy.runtime.streams.stream import Stream

    _check_order(model, source)
    say = functools.partial(click.echo, err="-" in names)
    pages = [*([serve] if serve else []), *(name for name in names if name.startswith("http://"))]
    files = [name for name in names if name not in pages] or ([] if pages else [_FOLDER])
    with ExitStack() as stack:
        frames = stack.enter_context(open_input(source, RawFormat.parse(raw) if raw else None))
        outputs = [stack.enter_context(open_output(name, frames)) for name in files]
        _check_places(outputs)
        segmenter = stack.enter_context(Segmenter.open(model))
        task, classes = segmenter.check_task(task), segmenter.manifest.classes
        if formats:
            file = next((n for n, output in zip(files, outputs, strict=True) if isinstance(output, Sink)), _FOLDER)
            folder = results_folder(file)
            outputs.append(stack.enter_context(ResultWriter(folder, formats, task, classes)))
        stream = Stream(frames, segmenter, task, outputs)
        say(f"{model}: {segmenter.manifest.architecture}, {task}, on {segmenter.name}")
        if frames.description:
            say(frames.description)
        for address in pages:
            page = stack.enter_context(serve_page(stream, address, frames.description if source == "-" else source))
            say(f"see {page.url}")
            if page.warning:
                click.secho(f"warning: {page.warning}", fg="yellow", err=True)
        _run(stream, frames, outputs)

        for line in summary(stream.stats(), stream.seconds, stream.means(), live=frames.live):
            say(line)
    wrote = [str(output.path) for output in outputs if isinstance(output, Sink) and output.written]
    if formats:
        wrote.append(f"results to {folder}/")
    if wrote:
        say(f"wrote {' and '.join(wrote)}")
    _warn(frames, stream)


def _check_order(model: Path, source: str) -> None:
    from proscale_deploy.runtime.image import IMAGE_SUFFIXES
    from proscale_deploy.runtime.streams.source import VIDEO_SUFFIXES

    is_picture = model.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    if is_picture or (source.endswith(".onnx") and model.suffix != ".onnx"):
        command = shlex.join(["proscale-deploy", "predict", source, str(model)])
        raise InputError(f"{model} and {source}: swapped? MODEL comes first: {command}")


def _check_places(outputs: "list[Output]") -> None:
    from proscale_deploy.runtime.streams.sink import Sink

    places = Counter(output.path.resolve() if isinstance(output, Sink) else output.name for output in outputs)
    if twice := [place for place, times in places.items() if times > 1]:
        raise InputError(f"{twice[0]} is the place of two outputs; give one --output for each")


def _run(stream: "Stream", source: "Source", outputs: "list[Output]") -> None:
    """To the end; one that was stopped, or failed, says what it kept."""
    status = StatusLine(source)
    try:
        stream.run(status.show)
    except KeyboardInterrupt as stop:
        status.clear()
        for line in summary(stream.stats(), stream.seconds, stream.means(), live=source.live):
            click.echo(line, err=True)
        _warn_of_slow(stream)
        raise type(stop)(*_kept(outputs)) from None
    except (DeployError, OSError):
        status.clear()
        for line in _kept(outputs):
            click.echo(line, err=True)
        raise
    status.clear()


def _kept(outputs: "list[Output]") -> list[str]:
    return [f"kept {output.kept}" for output in outputs if output.kept]


def _warn(source: "Source", stream: "Stream") -> None:
    """Of what went wrong without ending the stream; exit status 1 where images are missing."""
    _warn_of_slow(stream)
    for warning in source.warnings:
        click.echo(f"warning: {warning}", err=True)
    for skipped in source.skipped:
        click.echo(f"error: {skipped}", err=True)
    if source.skipped:
        click.echo(f"error: {len(source.skipped)} of {source.length} images could not be read", err=True)
        raise click.exceptions.Exit(1)


def _warn_of_slow(stream: "Stream") -> None:
    for output, missing in stream.unwritten().items():
        click.echo(f"warning: {output.name} was too slow for {count(missing, 'frame')}", err=True)
