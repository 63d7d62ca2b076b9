"""The target machine: frames in, results out. Needs numpy, OpenCV and Pillow, and the package of one engine to run on.

The main path is in :mod:`~proscale_deploy.runtime.segmenter`; around it, :mod:`~proscale_deploy.runtime.stream` brings
frames from :mod:`~proscale_deploy.runtime.inputs` and results to :mod:`~proscale_deploy.runtime.outputs`.
"""

from proscale_deploy.core.machine import cpu_name, cpus
from proscale_deploy.core.types import Instances, Panoptic, Semantic
from proscale_deploy.runtime.draw import overlay, render
from proscale_deploy.runtime.image import read_image, write_image
from proscale_deploy.runtime.inputs import open_input
from proscale_deploy.runtime.output import Output, Picture
from proscale_deploy.runtime.outputs import open_output, serve_page
from proscale_deploy.runtime.postprocess import postprocess
from proscale_deploy.runtime.preprocess import preprocess
from proscale_deploy.runtime.save import ResultWriter
from proscale_deploy.runtime.segmenter import Segmenter, Timings
from proscale_deploy.runtime.session import Session, open_session
from proscale_deploy.runtime.source import Frame, Source, open_source
from proscale_deploy.runtime.stats import Segmented, StreamStats
from proscale_deploy.runtime.stream import Stream

__all__ = [
    "Frame",
    "Instances",
    "Output",
    "Panoptic",
    "Picture",
    "ResultWriter",
    "Segmented",
    "Segmenter",
    "Semantic",
    "Session",
    "Source",
    "Stream",
    "StreamStats",
    "Timings",
    "cpu_name",
    "cpus",
    "open_input",
    "open_output",
    "open_session",
    "open_source",
    "overlay",
    "postprocess",
    "preprocess",
    "read_image",
    "render",
    "serve_page",
    "write_image",
]
