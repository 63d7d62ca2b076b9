"""Settings for the whole suite."""

import os

# Damaged videos are part of the tests; what FFmpeg and OpenCV think of them is not part of the output.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
