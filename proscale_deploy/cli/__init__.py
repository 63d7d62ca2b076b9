"""The command line: one file per verb. Here only what must be ready before anything slow is imported: being stopped."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

__all__ = ["Terminated", "main"]


class Terminated(KeyboardInterrupt):
    """SIGTERM, which docker and systemd send to stop a program: ends it in as good order as Ctrl-C does."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 could not be done, 2 wrong usage, 130 interrupted, 143 terminated.

    A verb that was stopped may raise the exception again with words on what it kept.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        from proscale_deploy.cli.app import run

        run(arguments)
    except KeyboardInterrupt as stop:
        # 128 plus the number of the signal, as shells say it.
        word, number = (
            ("terminated", signal.SIGTERM) if isinstance(stop, Terminated) else ("interrupted", signal.SIGINT)
        )
        print(", ".join([word, *map(str, stop.args)]), file=sys.stderr)
        sys.exit(128 + number)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # asked twice, it still finishes its files
    raise Terminated
