"""Segment a video, frame by frame: ``python samples/segment_video.py model.onnx drive.mp4 segmented.mp4``."""

import sys

from proscale_deploy.runtime import DeployError, Segmenter, Stream, StreamStats, open_input, open_output


def show(stats: StreamStats) -> None:
    print(f"\r{stats.frames} frames, {stats.frames_per_second:.1f} per second", end="", flush=True)


def main(model: str, video: str, output: str) -> None:
    with open_input(video) as source, Segmenter.open(model) as segmenter:
        stream = Stream(source, segmenter, "panoptic", [open_output(output, source)])
        stream.run(show)
        print(f"\nwrote {output}: {stream.stats().frames} frames in {stream.seconds:.1f} s")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except DeployError as error:
        sys.exit(f"error: {error}")
