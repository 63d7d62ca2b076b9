"""The verbs together, and what becomes of errors. Verbs only parse, call the rooms, print; heavy imports are inside."""

import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from proscale_deploy import __version__
from proscale_deploy.cli.bench import bench
from proscale_deploy.cli.build import build
from proscale_deploy.cli.doctor import doctor
from proscale_deploy.cli.evaluate import evaluate
from proscale_deploy.cli.export import export
from proscale_deploy.cli.inspect import inspect
from proscale_deploy.cli.plugin import plugin
from proscale_deploy.cli.predict import predict
from proscale_deploy.cli.sensitivity import sensitivity
from proscale_deploy.cli.verify import verify
from proscale_deploy.core.errors import DeployError

__all__ = ["app", "run"]


class _InWorkingOrder(click.Group):
    """Lists the verbs in the order in which one comes to need them, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InWorkingOrder, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="proscale-deploy")
def app() -> None:
    """Deploy trained PRO-SCALE and Mask2Former segmentation models."""


for _command in (export, sensitivity, build, inspect, predict, bench, verify, evaluate, plugin, doctor):
    app.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 could not be done, 2 wrong usage.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    # Damaged videos and missing encoders are reported in our own words; set before OpenCV is imported.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        status = app.main(arguments, prog_name="proscale-deploy", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort as abort:  # made by click of the exception that stopped it
        raise abort.__cause__ or KeyboardInterrupt from None
    except DeployError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except ImportError as error:
        click.echo(f"error: {error}; what is installed, and what to install: proscale-deploy doctor", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno == errno.EPIPE:
            _discard_stdout()
        else:
            click.echo(f"error: {_one_line(error)}", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _one_line(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)


def _discard_stdout() -> None:
    """Whoever read our output is gone (``| head``): let the interpreter's last flush go nowhere, without a message."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
