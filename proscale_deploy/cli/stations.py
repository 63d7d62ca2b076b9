"""Models in any form, for the verbs that measure: an exported file, or weights and their YAML."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.file_kind import WEIGHTS_SUFFIXES
from proscale_deploy.core.types import Size

if TYPE_CHECKING:
    from proscale_deploy.runtime.session import Session

__all__ = [
    "check_weights_options",
    "described",
    "has_engine",
    "is_weights",
    "open_both",
    "open_station",
    "station_options",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def station_options(command: Command) -> Command:
    config = click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="The YAML, where a model is given as weights (run by PyTorch).",
    )
    classes = click.option(
        "--classes",
        "class_file",
        type=click.Path(path_type=Path),
        help="With --config: the class list of a data set of your own, as for export.",
    )
    return config(classes(command))


def is_weights(path: Path) -> bool:
    return path.suffix.lower() in WEIGHTS_SUFFIXES


def check_weights_options(models: Sequence[Path], options: Mapping[str, object]) -> None:
    """Refuse what would be silently without effect.

    Raises:
        InputError: one of ``options``, which are for weights, is given, and none of ``models`` is weights.
    """
    given = [name for name, value in options.items() if value is not None]
    if given and not any(map(is_weights, models)):
        names = " and ".join(path.name for path in models)
        raise InputError(f"{given[0]} is for weights; in {names} stands already what it would say: leave it out")


def open_station(path: Path, config: Path | None, class_file: Path | None, size: Size | None = None) -> "Session":
    """An exported file in its engine; weights in PyTorch, with an input of ``size`` or the YAML's.

    Raises:
        InputError: weights without a YAML; otherwise as ``open_session`` and ``TorchSession``.
    """
    if not is_weights(path):
        from proscale_deploy.runtime.session import open_session

        return open_session(path)
    if config is None:
        raise InputError(f"{path}: weights need the YAML they were trained with: --config config.yaml")
    try:
        from proscale_deploy.export.stations import TorchSession
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "a package", "export", f"running {path.name} by PyTorch") from error
    return TorchSession(config, path, class_file, size)


def open_both(a: Path, b: Path, config: Path | None, class_file: Path | None) -> "Iterator[Session]":
    """A and B; weights get the input size of the exported file beside them."""
    rounding = not has_engine(a, b)
    if is_weights(a) and not is_weights(b):
        second = _open_exported(b, rounding)
        spec = second.manifest.input
        yield open_station(a, config, class_file, (spec.height, spec.width))
        yield second
    else:
        first = open_station(a, config, class_file) if is_weights(a) else _open_exported(a, rounding)
        yield first
        spec = first.manifest.input
        size = spec.height, spec.width
        yield open_station(b, config, class_file, size) if is_weights(b) else _open_exported(b, rounding)


def has_engine(*paths: Path) -> bool:
    """Beside what a GPU gives, a file is the truth as exactly as it can be computed: rounded too, both would err."""
    return any(path.suffix.lower() == ".engine" for path in paths)


def _open_exported(path: Path, rounding: bool) -> "Session":
    """An engine, or an .onnx file; where that holds FP16, with ``rounding`` a copy of it that rounds as a GPU does."""
    from proscale_deploy.core.manifest import METADATA_KEY
    from proscale_deploy.core.model_file import read_model
    from proscale_deploy.runtime.session import open_session

    if not rounding:
        return open_session(path)
    model, manifest = read_model(path)
    if manifest.conversion is None:
        return open_session(path)

    import onnx

    from proscale_deploy.export.emulate import emulate_half

    rounded = emulate_half(model)
    manifest = dataclasses.replace(manifest, conversion=dataclasses.replace(manifest.conversion, io="fp32"))
    onnx.helper.set_model_props(rounded, {METADATA_KEY: manifest.to_json()})
    with tempfile.TemporaryDirectory(prefix="proscale-verify-") as folder:
        copy = Path(folder, path.name)
        onnx.save(rounded, copy)
        return open_session(copy)


def described(path: Path, session: "Session", rounding: bool) -> str:
    manifest = session.manifest
    how = ", FP16 rounded as on a GPU" if rounding and manifest.conversion else ""
    return f"{path}, {manifest.architecture}, {manifest.precision}, on {session.name}{how}"
