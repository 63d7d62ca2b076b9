"""A real RTSP server, for the Python that has GStreamer's bindings: ``/usr/bin/python3 rtsp_server.py PORT PATTERN``.

PORT 0 takes a free one, and prints it. PATTERN is of videotestsrc; ``/test`` gives it as H.264, and what is sent to
``/sink`` is taken, decoded, and written to stdout as a line with the number of the picture and its size.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

TEST = (
    "( videotestsrc is-live=true pattern={} ! video/x-raw,width=160,height=120,framerate=25/1 ! "
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay0 pt=96 )"
)
SINK = "( rtph264depay name=depay0 ! decodebin ! video/x-raw ! identity name=seen ! fakesink )"


def count(media: GstRtspServer.RTSPMedia) -> None:
    seen = 0

    def on_picture(element: Gst.Element, buffer: Gst.Buffer) -> None:
        nonlocal seen
        caps = element.get_static_pad("src").get_current_caps().get_structure(0)
        print("picture", seen, caps.get_int("width")[1], caps.get_int("height")[1], flush=True)
        seen += 1

    media.get_element().get_by_name("seen").connect("handoff", on_picture)


def main(port: str, pattern: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    given = GstRtspServer.RTSPMediaFactory()
    given.set_launch(TEST.format(pattern))
    given.set_shared(True)
    server.get_mount_points().add_factory("/test", given)
    taken = GstRtspServer.RTSPMediaFactory()
    taken.set_launch(SINK)
    taken.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    taken.connect("media-configure", lambda factory, media: count(media))
    server.get_mount_points().add_factory("/sink", taken)
    server.attach(None)
    print("port", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
