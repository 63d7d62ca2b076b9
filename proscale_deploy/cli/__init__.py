"""The command line: one file per verb. Here only what must be ready before anything slow is imported: being stopped."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

__all__ = ["Terminated", "main", "program"]

_IN_NATIVE_CODE = ("live source", "opening", "stream")
"""How the names of threads begin that a driver, or a server that does not answer, can keep."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which docker and systemd send to stop a program: ends it in as good order as Ctrl-C does."""


def program() -> NoReturn:
    """:func:`main` as all of a process.

    Where a thread is left in native code, the process ends without the interpreter's own end: when such a thread comes
    back during that, Python before 3.14 aborts.
    """
    try:
        main()
    except SystemExit as end:
        if any(thread.name.startswith(_IN_NATIVE_CODE) for thread in threading.enumerate()):
            os._exit(end.code if isinstance(end.code, int) else 1)
        raise


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 could not be done, 2 wrong usage, 130 interrupted, 143 terminated.

    A verb that was stopped may raise the exception again with words on what it kept.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # as nohup and a shell's & want it
            signal.signal(number, _stop)
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
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # asked twice, it still finishes its files
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
