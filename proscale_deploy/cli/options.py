"""Options and arguments that several verbs take."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from proscale_deploy.core.types import Size

__all__ = ["SIZE", "TASKS", "calibration_option", "model_argument", "task_option"]

TASKS = ("panoptic", "instance", "semantic")

_LONGEST_SIDE = 8192
"""Pixels; beyond it tracing takes minutes and many gigabytes."""

Command = TypeVar("Command", bound=Callable[..., Any])


class _SizeType(click.ParamType):  # type: ignore[type-arg]
    name = "HEIGHTxWIDTH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9]\d{0,99})[xX]([1-9]\d{0,99})", str(value))
        if match is None:
            self.fail(f"{value!r} is not HEIGHTxWIDTH in pixels; for instance 800x1344", param, ctx)
        height, width = int(match[1]), int(match[2])
        if max(height, width) > _LONGEST_SIDE:
            self.fail(f"{value!r} is too large: at most {_LONGEST_SIDE} a side", param, ctx)
        return height, width


SIZE = _SizeType()


def model_argument(command: Command) -> Command:
    return click.argument("model", type=click.Path(path_type=Path))(command)


def task_option(command: Command) -> Command:
    tasks = click.Choice(TASKS)
    return click.option("--task", type=tasks, help="By default the first that the model was trained for.")(command)


def calibration_option(required: bool, help_text: str) -> Callable[[Command], Command]:
    return click.option("--calibration", metavar="DIR|GLOB|VIDEO", required=required, help=help_text)
