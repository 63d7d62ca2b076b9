"""Models in any form, for the verbs that compare: an exported file, or weights and their YAML."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.file_kind import WEIGHTS_SUFFIXES
from proscale_deploy.core.types import Size

if TYPE_CHECKING:
    from proscale_deploy.runtime.session import Session

__all__ = ["check_weights_options", "is_weights", "open_station", "station_options"]

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
