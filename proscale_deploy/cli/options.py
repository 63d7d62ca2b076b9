"""Options and arguments that several verbs take."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from proscale_deploy.core.types import Size

__all__ = ["SIZE", "TASKS", "model_argument", "task_option"]

TASKS = ("panoptic", "instance", "semantic")

Command = TypeVar("Command", bound=Callable[..., Any])


class _SizeType(click.ParamType):  # type: ignore[type-arg]
    name = "HEIGHTxWIDTH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", str(value))
        if match is None:
            self.fail(f"{value!r} is not HEIGHTxWIDTH in pixels; for instance 800x1344", param, ctx)
        return int(match[1]), int(match[2])


SIZE = _SizeType()


def model_argument(command: Command) -> Command:
    return click.argument("model", type=click.Path(path_type=Path))(command)


def task_option(command: Command) -> Command:
    tasks = click.Choice(TASKS)
    return click.option("--task", type=tasks, help="By default the first that the model was trained for.")(command)
