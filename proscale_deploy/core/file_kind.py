"""What a file is that is not what was asked for, told by its first bytes and its name."""

from pathlib import Path
from typing import Final

__all__ = ["CONFIGURATION", "ENGINE", "HEAD", "ONNX", "WEIGHTS", "WEIGHTS_SUFFIXES", "looks_like"]

HEAD: Final = 512
"""Bytes that are looked at."""

CONFIGURATION: Final = "a YAML configuration"
ENGINE: Final = "an engine"
ONNX: Final = "an ONNX file"
WEIGHTS: Final = "trained weights"

WEIGHTS_SUFFIXES: Final = frozenset({".pkl", ".pt", ".pth", ".safetensors"})

_SIGNATURES: Final = {
    b"version https://git-lfs": "a Git LFS pointer instead of the file itself (type: git lfs pull)",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"PK\x03\x04": WEIGHTS,  # torch.save
    b"\x80": WEIGHTS,  # a pickle, of detectron2 or an older torch.save
}
_SUFFIXES: Final = {
    **dict.fromkeys(WEIGHTS_SUFFIXES, WEIGHTS),
    **dict.fromkeys((".yaml", ".yml"), CONFIGURATION),
    **dict.fromkeys((".engine", ".plan", ".trt"), ENGINE),
    ".onnx": ONNX,
}


def looks_like(path: Path, head: bytes, wanted: str) -> str:
    """What ``path``, which begins with ``head`` and is not ``wanted`` whatever its name says, most likely is."""
    if not head:
        return "the file is empty"
    if kind := next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), None):
        return kind
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, most likely the error page of a failed download"
    if (kind := _SUFFIXES.get(path.suffix.lower(), wanted)) != wanted:
        return kind
    start = head[:32].decode("latin1")
    return f"a text file that begins with {start!r}" if start.isprintable() else f"an unknown format, {head[:8]!r}"
