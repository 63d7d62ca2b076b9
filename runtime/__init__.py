"""The target machine: frames in, results out. Needs numpy, OpenCV and Pillow, and the package of one engine to run on.

The main path is in :mod:`~proscale_deploy.runtime.segmenter`; around it, :mod:`~proscale_deploy.runtime.streams` brings
frames from files and cameras and takes results to files and the network. :mod:`~proscale_deploy.runtime.gpu` has the
session and the pipeline of a GPU, :mod:`~proscale_deploy.runtime.compiled` the kernels for frames and masks.
"""

from proscale_deploy.core.errors import DeployError
from proscale_deploy.core.machine import cpu_name, cpus
from proscale_deploy.core.types import Instances, Panoptic, Semantic
from proscale_deploy.runtime.draw import overlay, render
from proscale_deploy.runtime.image import read_image, write_image
from proscale_deploy.runtime.postprocess import postprocess
from proscale_deploy.runtime.preprocess import preprocess
from proscale_deploy.runtime.segmenter import Segmenter, Timings
from proscale_deploy.runtime.session import Session, open_session
from proscale_deploy.runtime.streams.inputs import open_input
from proscale_deploy.runtime.streams.output import Output, Picture
from proscale_deploy.runtime.streams.outputs import open_output, serve_page
from proscale_deploy.runtime.streams.save import ResultWriter
from proscale_deploy.runtime.streams.source import Frame, Source, open_source
from proscale_deploy.runtime.streams.stats import Segmented, StreamStats
from proscale_deploy.runtime.streams.stream import Stream

__all__ = [
    "DeployError",
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
