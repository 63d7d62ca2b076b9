"""``predict`` on what goes on for ever, as the program that people start and stop."""

import fcntl
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import pytest

from proscale_deploy import cli
from support.color_model import picture, write_color_model
from support.results import listing
from support.servers import Wire, encode, free_port, needs_ffmpeg


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    write_color_model(tmp_path / "in/m.onnx")
    return tmp_path


def count_frames(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


class Program:
    """``predict`` in a process of its own; what it says is collected as it comes."""

    def __init__(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        command = [sys.executable, "-m", "proscale_deploy", "predict", "in/m.onnx", *arguments]
        self.process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [self._collect(self.process.stdout, self.out), self._collect(self.process.stderr, self.err)]

    @staticmethod
    def _collect(pipe: IO[str] | None, lines: list[str]) -> threading.Thread:
        assert pipe is not None
        thread = threading.Thread(target=lines.extend, args=(pipe,))
        thread.start()
        return thread

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, (self.out, self.err)
            assert self.process.poll() is None, (self.out, self.err)
            time.sleep(0.02)

    def end(self, sent: signal.Signals | None = None) -> int:
        if sent is not None:
            self.process.send_signal(sent)
        status = self.process.wait(60)
        for reader in self._readers:
            reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return status


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Forty seconds of MPEG-TS."""
    return encode(tmp_path_factory.mktemp("stream") / "a.ts", 1000).read_bytes()


@needs_ffmpeg
def test_json_lines_and_a_file_until_ctrl_c(folder: Path, stream: bytes) -> None:
    with Wire(lambda: stream, 50_000) as wire:
        program = Program(f"http://127.0.0.1:{wire.port}/a.ts", "--output", "out.mp4", "--output", "-")
        program.until(lambda: len(program.out) > 30)
        assert program.end(signal.SIGINT) == 130
    lines = [json.loads(line) for line in program.out]
    frames = [line["frame"] for line in lines]
    assert frames == sorted(set(frames))
    assert {(line["task"], line["height"], line["width"]) for line in lines} == {("panoptic", 120, 160)}
    err = "".join(program.err)
    assert "live, 160x120 at 25 frames per second, decoded by FFmpeg\n" in err
    assert re.search(r"\d+ frames in [\d.]+ s, [\d.]+ per second, \d+ ms old, \d+ dropped\n", err)
    kept = re.search(r"interrupted, kept out.mp4 \((\d+) frames\)", err)
    assert kept is not None
    assert count_frames(folder / "out.mp4") == int(kept[1]) > 10
    assert "Traceback" not in err
    assert listing(folder) == ["in/m.onnx", "out.mp4"]


@needs_ffmpeg
def test_a_stream_that_is_lost_and_found_is_told(folder: Path, stream: bytes) -> None:
    short = stream[: len(stream) // 20 // 188 * 188]
    with Wire(lambda: short if wire.connections == 1 else stream, 50_000) as wire:
        program = Program(f"http://127.0.0.1:{wire.port}/a.ts", "--output", "out.mp4")
        program.until(lambda: any(line.startswith("back after") for line in program.err))
        assert program.end(signal.SIGTERM) == 143
    assert "lost: the stream ended; trying again\n" in program.err
    assert "1 reconnect" in "".join(program.err)
    assert count_frames(folder / "out.mp4") > 10


@needs_ffmpeg
def test_a_page_of_it(folder: Path, stream: bytes) -> None:
    port = free_port()
    with Wire(lambda: stream, 50_000) as wire:
        program = Program(f"http://127.0.0.1:{wire.port}/a.ts", "--serve", str(port))
        program.until(lambda: any(line.startswith("see ") for line in program.out))
        url = next(line.split()[1] for line in program.out if line.startswith("see "))
        assert str(port) in url
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"<html" in answer.read()
        assert program.end(signal.SIGTERM) == 143
    assert listing(folder) == ["in/m.onnx"], "a page alone writes no files"


@needs_ffmpeg
def test_a_reader_that_is_too_slow_is_told_of(folder: Path, stream: bytes) -> None:
    """Nobody takes the lines before the end."""
    with Wire(lambda: stream, 50_000) as wire:
        address = f"http://127.0.0.1:{wire.port}/a.ts"
        command = [sys.executable, "-m", "proscale_deploy", "predict", "in/m.onnx", address, "--output", "-"]
        command += ["--output", "out.avi"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
            deadline = time.monotonic() + 60
            while not any(path.stat().st_size > 200_000 for path in folder.glob(".out.*")):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [json.loads(line)["frame"] for line in out.splitlines()]
    assert re.search(r"warning: standard output was too slow for \d+ frames?\n", err)


def test_raw_frames_are_all_segmented(folder: Path) -> None:
    frames = b"".join(picture(car=2 * (i % 60)).tobytes() for i in range(40))
    program = Program("-", "--raw", "180x120@10", "--output", "out.avi", stdin=subprocess.PIPE)
    assert program.process.stdin is not None
    program.process.stdin.buffer.write(frames)
    program.process.stdin.close()
    assert program.end() == 0, program.err
    out = "".join(program.out)
    assert "raw frames, 180x120 bgr24, 10 per second\n" in out
    assert "40 frames in" in out
    assert "dropped" not in out
    assert count_frames(folder / "out.avi") == 40


def test_ctrl_c_while_a_pipe_gives_nothing(folder: Path) -> None:
    program = Program("-", "--raw", "180x120", "--output", "out.avi", stdin=subprocess.PIPE)
    program.until(lambda: any("raw frames" in line for line in program.out))
    assert program.end(signal.SIGINT) == 130
    assert program.process.stdin is not None
    program.process.stdin.close()
    assert "".join(program.err).strip() == "interrupted"


def test_a_reader_that_goes_away(folder: Path) -> None:
    """``| head -3``."""
    frames = picture().tobytes() * 200
    (folder / "frames").write_bytes(frames)
    command = f"{sys.executable} -m proscale_deploy predict in/m.onnx - --raw 180x120 --output - < frames | head -3"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert len(run.stdout.splitlines()) == 3
    assert "Traceback" not in run.stderr
    assert "Error" not in run.stderr


def test_a_disk_that_fills(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    writer = cv2.VideoWriter("in/clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10, (180, 120))
    for i in range(30):
        writer.write(picture(car=2 * i))
    writer.release()
    free = iter([100 << 20] * 12 + [1 << 20] * 100)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": next(free)}))
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", "in/m.onnx", "in/clip.avi", "--output", "out.mp4", "--save", "json"])
    assert caught.value.code == 1
    err = capsys.readouterr().err
    assert "kept out.mp4 (12 frames)\n" in err
    assert re.search(r"kept out_results/ \(results of \d+ frames\)\n", err)
    assert err.endswith("error: the disk is full: stopped out.mp4 after 12 frames\n")
    assert count_frames(folder / "out.mp4") == 12
    assert len(json.loads((folder / "out_results/results.json").read_text())) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-"], "need --raw WIDTHxHEIGHT"),
        (["-", "--raw", "big"], "expected WIDTHxHEIGHT"),
        (["in/m.png", "--raw", "4x4"], "--raw is for frames from a pipe"),
        (["in/m.png", "--serve", "here"], "expected HOST:PORT or PORT"),
        (["/dev/video99"], "no such device"),
        (["csi://0"], "CSI cameras need a Jetson"),
        (["rtsp://me:secret@127.0.0.1:1/a"], "cannot open rtsp://127.0.0.1:1/a: nothing answers"),
        (["in/m.png", "--output", "udp://host:1"], "expected a file, a folder"),
        (["in/m.png", "--output", "a.png", "--output", "./in/../a.png"], "a.png is the place of two outputs"),
        (["in/m.png", "--output", "-", "--output", "-"], "standard output is the place of two outputs"),
    ],
)
def test_bad_arguments(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    cv2.imwrite("in/m.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SystemExit) as caught:
        cli.main(["predict", "in/m.onnx", *arguments])
    assert caught.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert "secret" not in err
    assert len(err.splitlines()) == 1
    assert listing(folder) == ["in/m.onnx", "in/m.png"]
