"""What a file is told to be that is not what was wanted."""

from pathlib import Path

import pytest

from proscale_deploy.core.file_kind import CONFIGURATION, ENGINE, ONNX, WEIGHTS, looks_like


@pytest.mark.parametrize(
    ("name", "head", "kind"),  # weights were wanted, or where the file holds them, an ONNX file
    [
        ("m.onnx", b"", "the file is empty"),
        ("m.onnx", b"PK\x03\x04", WEIGHTS),  # the contents are believed before the name
        ("m.pkl", b"\x80\x02}", WEIGHTS),
        ("m.safetensors", b"\x10\0\0\0\0\0\0\0{", WEIGHTS),
        ("c.yml", b"MODEL:", CONFIGURATION),
        ("m.engine", b"ptrt", ENGINE),
        ("m.ONNX", b"\x08\x08", ONNX),
        ("m.pth", b"\x08\x08", "an unknown format"),  # what it is called is what it is not
        ("street.dat", b"\xff\xd8\xff\xe0", "a picture"),
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer instead of the file itself"),
        ("m.pth", b"\n<!DOCTYPE html>", "a web page"),
        ("notes", b"see there", "a text file that begins with 'see there'"),
        ("notes", b"\0\1", "an unknown format"),
    ],
)
def test_kinds(name: str, head: bytes, kind: str) -> None:
    assert looks_like(Path(name), head, ONNX if kind == WEIGHTS else WEIGHTS).startswith(kind)
