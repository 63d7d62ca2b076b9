"""The target machine: frames in, results out. Needs numpy, OpenCV and Pillow, and the package of one engine to run on.

The main path is in :mod:`~proscale_deploy.runtime.segmenter`; around it, frames come from
:mod:`~proscale_deploy.runtime.source`, and results go through :mod:`~proscale_deploy.runtime.draw` to
:mod:`~proscale_deploy.runtime.sink` and :mod:`~proscale_deploy.runtime.save`.
"""

from proscale_deploy.core.machine import cpu_name, cpus
from proscale_deploy.runtime.draw import overlay, render
from proscale_deploy.runtime.image import read_image, write_image
from proscale_deploy.runtime.postprocess import postprocess
from proscale_deploy.runtime.preprocess import preprocess
from proscale_deploy.runtime.save import ResultWriter
from proscale_deploy.runtime.segmenter import Segmenter, Timings
from proscale_deploy.runtime.session import Session, open_session
from proscale_deploy.runtime.sink import open_sink
from proscale_deploy.runtime.source import open_source

__all__ = [
    "ResultWriter",
    "Segmenter",
    "Session",
    "Timings",
    "cpu_name",
    "cpus",
    "open_session",
    "open_sink",
    "open_source",
    "overlay",
    "postprocess",
    "preprocess",
    "read_image",
    "render",
    "write_image",
]
