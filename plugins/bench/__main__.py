"""``python -m plugins.bench``: see README.md."""

from __future__ import annotations

from pathlib import Path

import click

from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import DeployError
from proscale_deploy.core.files import check_output


@click.command()
@click.option("--quick", is_flag=True, help="A few cases around the headline one, for a slot of ten minutes.")
@click.option(
    "--peer", "peers", multiple=True, metavar="NAME=LIBRARY.so:SYMBOL:FORM", help="Another kernel to compare."
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("plugin-bench.json"),
    show_default=True,
    help="All figures, as JSON; written anew after every case.",
)
def main(quick: bool, peers: tuple[str, ...], output: Path) -> None:
    """Time the deformable-attention kernel beside others on this machine's GPU, with each one's error against FP64.

    The library is the one that `proscale-deploy plugin build` made, or the one that PROSCALE_PLUGIN names. Run from the
    top of a checkout.
    """
    try:
        check_output(output)
        _run(quick, peers, output)
    except DeployError as error:
        raise click.ClickException(str(error)) from error


def _run(quick: bool, others: tuple[str, ...], output: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        raise DeployError("no CUDA GPU here: the benchmark needs one, and a PyTorch built for CUDA")
    from plugins.bench.cases import HEADLINE, all_cases, quick_cases
    from plugins.bench.machine import ClockReader, facts
    from plugins.bench.measure import measure
    from plugins.bench.peers import Ours, Torch, deformops_peers, parse_peer
    from plugins.bench.report import head, table, write_json
    from plugins.bench.timing import copy_bandwidth
    from proscale_deploy.core.native import Kernel, Library

    library = Library(_find_library())
    ours = [Ours(f"ours, {kernel.name.lower()}", library, kernel) for kernel in (Kernel.TILED, Kernel.PLAIN)]
    peers = [*ours, *map(parse_peer, others), *deformops_peers(), Torch("torch grid_sample", is_compiled=False)]
    compiled = Torch("torch.compile", is_compiled=True)

    clocks = ClockReader()
    machine, bandwidth = facts(clocks), copy_bandwidth()
    click.echo(f"{library.path}\n{head(machine, bandwidth)}")
    results = []
    cases = quick_cases() if quick else all_cases()
    for number, case in enumerate(cases, 1):
        click.echo(f"\n[{number}/{len(cases)}] {case.name} ...", err=True)
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        # Compiling takes longer than measuring.
        with_compiled = [*peers, compiled] if case == HEADLINE or not quick else peers
        with torch.inference_mode():
            results.append(measure(case, with_compiled, bandwidth, clocks, rounds=20))
        click.echo("\n" + table(results[-1]))
        write_json(output, machine, bandwidth, results)
    click.echo(f"\nwritten: {output}")


def _find_library() -> Path:
    found = plugin_library.plugins()
    if not found:
        raise DeployError(
            f"no {plugin_library.PLUGIN} here: type proscale-deploy plugin build, or give its place as "
            f"{plugin_library.OVERRIDE}"
        )
    return found[-1]


if __name__ == "__main__":
    main(prog_name="python -m plugins.bench")
