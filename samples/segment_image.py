"""Segment an image: ``python samples/segment_image.py model.onnx street.jpg segmented.jpg``."""

import sys
from pathlib import Path

from proscale_deploy.runtime import DeployError, Panoptic, Segmenter, read_image, render, write_image


def main(model: str, image: str, output: str) -> None:
    frame = read_image(Path(image))
    with Segmenter.open(model) as segmenter:
        classes = segmenter.manifest.classes
        result = segmenter(frame, "panoptic")
    assert isinstance(result, Panoptic)  # what was asked for
    for segment in result.segments:
        print(f"{classes[segment.class_id].name:<16} {segment.area:>8} pixels, score {segment.score:.2f}")
    write_image(Path(output), render(frame, result, classes))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except DeployError as error:
        sys.exit(f"error: {error}")
