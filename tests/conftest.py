"""Settings for the whole suite."""

import os
import signal

# Threads of numeric libraries wait for each other in loops: for networks as small as these that is most of what they
# do, and beside another process (pytest-xdist) nearly all. Read when PyTorch and NumPy are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Damaged videos are part of the tests; what FFmpeg and OpenCV think of them is not part of the output.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

# What a shell runs in the background ignores Ctrl-C, and so would the programs that tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
