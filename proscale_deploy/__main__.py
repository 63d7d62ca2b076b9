"""``python -m proscale_deploy``, the same as the console script."""

from proscale_deploy.cli import program

program()
