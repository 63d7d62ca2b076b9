"""Real pictures for the verbs that look at ranges: an image source becomes network inputs."""

from typing import TYPE_CHECKING

import click

from proscale_deploy.core.types import InputSpec

if TYPE_CHECKING:
    from proscale_deploy.export.calibration import CalibrationImages

__all__ = ["read_calibration"]


def read_calibration(source: str, spec: InputSpec) -> "CalibrationImages":
    """Pictures of a folder, glob or video as inputs of a network, behind a progress bar.

    Raises:
        InputError: there is no such source.
        PrecisionError: it has too few pictures.
    """
    from proscale_deploy.export.calibration import SAMPLED_IMAGES, evenly, sample
    from proscale_deploy.runtime.preprocess import preprocess
    from proscale_deploy.runtime.streams.source import ImageSource, VideoSource, open_source

    with open_source(source) as opened:
        if not isinstance(opened, VideoSource):
            opened = ImageSource(evenly(opened.files, SAMPLED_IMAGES))  # the others need not be decoded
        with click.progressbar(opened, length=opened.length, label="     reading images") as frames:
            images = sample((frame.image for frame in frames), lambda frame: preprocess(frame, spec)[0], source)
        for message in (*opened.skipped, *opened.warnings):
            click.echo(f"     {message}", err=True)
    return images
