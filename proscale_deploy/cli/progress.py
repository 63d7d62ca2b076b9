"""Progress of what has several parts, each with a count of its own."""

import sys

import click

__all__ = ["show_progress"]


def show_progress(what: str, done: int, of: int) -> None:
    """One line per part that counts up on a terminal; elsewhere the line is written when the part is done."""
    if sys.stdout.isatty():
        click.echo(f"\r     {what} {done} of {of}\033[K", nl=done == of)
    elif done == of:
        click.echo(f"     {what} {done} of {of}")
