"""What the command line makes of errors: one line, the right status, never a traceback."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from proscale_deploy import __version__, cli
from proscale_deploy.cli.app import app
from proscale_deploy.core.errors import DeployError, MissingDependency

VERBS = ("export", "inspect", "predict", "bench", "doctor")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[BaseException], tuple]:
    """Run a verb that raises; gives (status, stdout, stderr)."""

    def run(error: BaseException) -> tuple[object, str, str]:
        @click.command()
        def fail() -> None:
            raise error

        monkeypatch.setitem(app.commands, "fail", fail)
        with pytest.raises(SystemExit) as caught:
            cli.main(["fail"])
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (DeployError("no such thing; type this"), 1, "error: no such thing; type this\n"),
        (MissingDependency("torch", "export", "export"), 1, "error: export needs torch, which is not installed: "),
        (OSError(28, "No space left on device", "out.onnx"), 1, "error: out.onnx: No space left on device\n"),
        (PermissionError(13, "Permission denied", "/etc/x"), 1, "error: /etc/x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (KeyboardInterrupt("kept a.mp4"), 130, "\ninterrupted, kept a.mp4\n"),
        (cli.Terminated(), 143, "\nterminated\n"),
    ],
)
def test_expected_trouble(failing: Callable, error: BaseException, status: int, line: str) -> None:
    code, out, err = failing(error)
    assert code == status
    assert out == ""
    assert err.startswith(line)
    assert "Traceback" not in err


def test_our_own_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(app.commands, "fail", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_who_is_stopped_is_not_stopped_again(monkeypatch: pytest.MonkeyPatch, number: int, status: int) -> None:
    finished = []

    @click.command()
    def work() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            finished.append("the file")
            raise

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setitem(app.commands, "work", work)
    with pytest.raises(SystemExit) as caught:
        cli.main(["work"])
    assert caught.value.code == status
    assert finished == ["the file"]
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(("thread", "ending"), [("live source", ""), ("tqdm's", "the interpreter ended\n")])
def test_a_thread_that_is_left_in_a_driver_does_not_meet_the_end_of_the_interpreter(thread: str, ending: str) -> None:
    code = f"""
import atexit, sys, threading, time
from proscale_deploy import cli
atexit.register(print, "the interpreter ended")
threading.Thread(target=time.sleep, args=(60,), name="{thread}", daemon=True).start()
sys.argv = ["proscale-deploy", "--nope"]
cli.program()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (run.returncode, run.stdout) == (2, ending)
    assert "No such option" in run.stderr


@pytest.mark.parametrize("arguments", [["dance"], ["predict"], ["predict", "a", "b", "--task", "depth"], ["--nope"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "Usage:" in capsys.readouterr().err


def test_help_lists_the_verbs_in_working_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    places = [text.index(f"  {verb} ") for verb in VERBS]
    assert places == sorted(places)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    assert "Usage:" in capsys.readouterr().out


def test_python_dash_m_and_version() -> None:
    command = [sys.executable, "-m", "proscale_deploy", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert __version__ in run.stdout


def test_stopped_while_it_still_imports() -> None:
    code = """
import os, signal, sys
class Stop:
    def find_spec(self, name, *_):
        if name == "click":
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
sys.meta_path.insert(0, Stop())
sys.argv[2:] = ["--version"]
import proscale_deploy.__main__
"""
    for name, status, line in (("SIGINT", 130, "interrupted\n"), ("SIGTERM", 143, "terminated\n")):
        run = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stdout, run.stderr) == (status, "", line)


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in ``proscale-deploy ... | head -0``."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "proscale_deploy", "--help"]
    run = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert run.returncode == 1
    assert run.stderr == ""
