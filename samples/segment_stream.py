"""Watch a camera or a stream, and act on what is seen: ``python samples/segment_stream.py model.engine /dev/video0``.

The page of the stream is at http://127.0.0.1:8080 until Ctrl-C.
"""

import sys
from contextlib import suppress

from proscale_deploy.runtime import (
    DeployError,
    Output,
    Panoptic,
    Picture,
    Segmented,
    Segmenter,
    Stream,
    open_input,
    serve_page,
)


class Things(Output):
    """Called with every result, in a thread of its own."""

    def write(self, item: Segmented, picture: Picture) -> None:
        assert isinstance(item.result, Panoptic)
        names = [picture.classes[segment.class_id].name for segment in item.result.segments if segment.is_thing]
        print(f"{item.frame.timestamp:8.2f} s  {', '.join(names)}")


def main(model: str, camera: str, port: str = "8080") -> None:
    with open_input(camera) as source, Segmenter.open(model) as segmenter:
        stream = Stream(source, segmenter, "panoptic", [Things()])
        print(f"see {serve_page(stream, port, source.description).url}")
        with suppress(KeyboardInterrupt):
            stream.run()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except DeployError as error:
        sys.exit(f"error: {error}")
