"""``plugin``: compile the CUDA plugin for TensorRT, and look at what is there."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from proscale_deploy.core import machine, plugin_library
from proscale_deploy.core.errors import InputError, PluginError


@click.group()
def plugin() -> None:
    """Compile the CUDA plugin for TensorRT; show what is there."""


class _Architectures(click.ParamType):  # type: ignore[type-arg]
    name = "LIST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        if value == "all":
            return ()
        names = tuple(str(value).replace(" ", "").split(","))
        if not all(re.fullmatch(r"\d{2,3}[af]?", name) for name in names):
            self.fail(f"{value!r} is not a list of compute capabilities; for instance 87,90 (or all)", param, ctx)
        return names


@plugin.command()
@click.option(
    "--headers",
    metavar="FOLDER|REPOSITORY",
    help="TensorRT's headers: the folder of NvInfer.h, an unpacked SDK, or a repository of NVIDIA/TensorRT (path or "
    "URL), of which the tag of the installed version is taken, or that behind an @.  [default: TENSORRT_ROOT, or the "
    "usual places]",
)
@click.option(
    "--arch",
    "architectures",
    type=_Architectures(),
    help="Compute capabilities to compile for, for instance 87,90; or all.  [default: of this machine's GPUs, all if "
    "it has none]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder for the libraries.  [default: where they are found]",
)
@click.option("--host-only", is_flag=True, help="Compile the CPU's library alone, without CUDA and TensorRT.")
def build(headers: str | None, architectures: Sequence[str] | None, output: Path | None, host_only: bool) -> None:
    """Compile the libraries and put them where they are found.

    Needs cmake, a C++ compiler, the CUDA toolkit, and TensorRT's headers.

    \b
      proscale-deploy plugin build
      proscale-deploy plugin build --headers https://github.com/NVIDIA/TensorRT
    """
    from proscale_deploy.export.plugin_build import build_host, build_plugin

    def tell(text: str) -> None:
        click.echo(f"     {text}")

    if host_only:
        if headers is not None or architectures is not None:
            raise InputError("--host-only compiles nothing that --headers and --arch could be for: leave them out")
        built = [build_host(output, tell)]
    else:
        built = build_plugin(headers, architectures, output, tell)
    for path in built:
        click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if output is None:
        _print_if_unused(built)


def _print_if_unused(built: Sequence[Path]) -> None:
    try:
        looked_at = [*plugin_library.plugins(), plugin_library.find_host()]
    except PluginError as error:
        click.echo(f"note: {error}")
        return
    if any(path not in looked_at for path in built):
        click.echo(f"note: the environment variable {plugin_library.OVERRIDE} names other libraries, which are used")
        return
    installed = machine.package("tensorrt").version
    if installed and any(path.name == plugin_library.PLUGIN for path in built):
        try:
            used = plugin_library.find_plugin(installed)
        except PluginError as error:
            click.echo(f"note: {error}")
        else:
            if used not in built:
                click.echo(f"note: the TensorRT that is installed here, {installed}, takes {used}")


@plugin.command()
@click.pass_context
def info(ctx: click.Context) -> None:
    """Show the libraries that are there, and whether they load. Exit status 1: no usable plugin."""
    found = plugin_library.plugins()
    usable = [_print(path) for path in found]
    if not found:
        click.echo("no plugin library; to compile it: proscale-deploy plugin build. Looked in:")
        looked = os.environ.get(plugin_library.OVERRIDE)
        for place in [looked] if looked else plugin_library.homes():
            click.echo(f"  {place}")
    if host := plugin_library.find_host():
        _print(host)
    else:
        click.echo("no host library: the CPU runs the operator without it")
    if not any(usable):
        ctx.exit(1)


def _print(library: Path) -> bool:
    click.echo(library)
    problem = plugin_library.problem(library)
    rows = {"state": problem or "loads, and is as it was built"}
    facts = None if problem else plugin_library.read_facts(library)
    if facts:
        rows |= {"version": facts.version, "built": f"{facts.built} with {facts.compiler}"}
        if facts.cuda:
            rows["CUDA"] = f"{facts.cuda}, for {', '.join(facts.architectures)}"
        if facts.tensorrt:
            rows["TensorRT"] = f"{facts.tensorrt} headers"
        rows["sha256"] = facts.sha256
    for name, value in rows.items():
        click.echo(click.wrap_text(value, 100, f"  {name:<10}", " " * 12))
    return problem is None
