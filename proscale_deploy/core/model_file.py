"""Reading an exported .onnx file, without an engine and without torch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.file_kind import CONFIGURATION, HEAD, ONNX, WEIGHTS, looks_like
from proscale_deploy.core.manifest import METADATA_KEY, Manifest

if TYPE_CHECKING:
    import onnx

__all__ = ["check_model_file", "read_model"]


def _export(config: str = "C.yaml", weights: str = "W.pth") -> str:
    return f"proscale-deploy export --config {config} --weights {weights} --size HEIGHTxWIDTH --output M.onnx"


def read_model(path: Path) -> tuple[onnx.ModelProto, Manifest]:
    """The graph and the manifest of an exported .onnx file, without an engine.

    Raises:
        InputError: the file is missing, damaged, or not written by proscale-deploy.
        MissingDependency: onnx is not installed.
    """
    check_model_file(path)
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise MissingDependency("onnx", "cpu", f"reading {path.name}") from error

    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise InputError(f"{path}: {_instead(path)}") from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if METADATA_KEY not in metadata:
        raise InputError(
            f"{path}: not written by proscale-deploy: no {METADATA_KEY!r} entry in its metadata; make one by: "
            f"{_export()}"
        )
    return model, Manifest.from_json(metadata[METADATA_KEY], str(path))


def check_model_file(path: Path) -> None:
    """Refuse a model file that cannot be one.

    Raises:
        InputError: it is missing, empty, or a folder.
    """
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: {found}; expected a model file, made by: {_export()}")
    if not path.stat().st_size:
        raise InputError(f"{path}: the file is empty; copy it again, or make it by: {_export()}")


def _instead(path: Path) -> str:
    """What stands in place of an ONNX file, and what to do."""
    with path.open("rb") as file:
        kind = looks_like(path, file.read(HEAD), ONNX)
    name = shlex.quote(str(path))
    if kind == WEIGHTS:
        return f"{kind}; expected an exported model: {_export(weights=name)}"
    if kind == CONFIGURATION:
        return f"{kind}; expected an exported model, which is made of it and of the weights: {_export(config=name)}"
    if kind.startswith(("a text", "an unknown")):
        return f"no ONNX file, or a truncated one; copy it again, or make it by: {_export()}"
    return f"{kind}; expected an exported ONNX file, made by: {_export()}"
