"""Models in any form, for the verbs that compare: an exported file, or weights and their YAML."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.types import Placement, RawOutput, Result, Size, Task, Thresholds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from proscale_deploy.runtime.session import Session

__all__ = ["all_tasks", "is_weights", "open_station", "station_options"]

_WEIGHTS = frozenset({".pkl", ".pt", ".pth", ".safetensors"})

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
    return path.suffix.lower() in _WEIGHTS


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


def all_tasks(
    session: "Session", thresholds: Thresholds, frame: "NDArray[np.uint8]", tasks: Sequence[Task]
) -> tuple[RawOutput, Placement, Mapping[Task, Result], dict[str, float]]:
    """One run of the network, and the results of all ``tasks`` from it; the seconds that each stage took."""
    from proscale_deploy.runtime.postprocess import postprocess
    from proscale_deploy.runtime.preprocess import preprocess

    manifest = session.manifest
    times = [perf_counter()]
    image, placement = preprocess(frame, manifest.input)
    times.append(perf_counter())
    (raw,) = session.run(image[None])
    times.append(perf_counter())
    results: dict[Task, Result] = {}
    for task in tasks:
        results[task] = postprocess(raw, placement, manifest.classes, thresholds, task)
        times.append(perf_counter())
    stages = ("preprocess", "inference", *tasks)
    return raw, placement, results, {s: end - start for s, start, end in zip(stages, times, times[1:], strict=False)}
