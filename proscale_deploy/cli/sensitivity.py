"""``sensitivity``: what each block of a model loses in FP16 and INT8."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proscale_deploy.cli.agreement import judge_of
from proscale_deploy.cli.calibration import read_calibration
from proscale_deploy.cli.options import calibration_option, model_argument
from proscale_deploy.cli.progress import show_progress
from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.files import check_not_input, check_output, replacing

if TYPE_CHECKING:
    from proscale_deploy.export.sensitivity import BlockLoss


@click.command()
@model_argument
@calibration_option(required=True, help_text="Real pictures.")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The JSON file to write; the plot gets the same name with .png.",
)
def sensitivity(model: Path, calibration: str, output: Path) -> None:
    """Measure what each block of MODEL, an exported FP32 file, loses when it alone goes to FP16 or to INT8.

    Losses are what the results differ by from those of FP32, in points of panoptic quality and of mean IoU; no
    annotations are needed.

    \b
      proscale-deploy sensitivity model.onnx --calibration pictures/ --output sensitivity.json
    """
    plot = output.with_suffix(".png")
    check_not_input([output, plot], [model])
    for path in (output, plot):
        check_output(path)
    if output.suffix.lower() != ".json":
        raise InputError(f"cannot write {output}: expected a .json file, the plot gets the same name with .png")
    try:
        from proscale_deploy.core.model_file import read_model
        from proscale_deploy.export.sensitivity import Laboratory
        from proscale_deploy.export.sensitivity_plot import write_plot
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "a package", "export", "proscale-deploy sensitivity") from error

    graph, manifest = read_model(model)
    if manifest.precision != "fp32":
        raise InputError(f"{model} is of {manifest.precision} already; give the file of --precision fp32")
    images = read_calibration(calibration, manifest.input)
    laboratory = Laboratory(graph, images, judge_of(manifest), progress=show_progress)
    losses = laboratory.survey(("fp16", "int8"), show_progress)
    _print(losses)
    facts = {
        "model": str(model),
        "weights_sha256": manifest.weights_sha256,
        "calibration": dataclasses.asdict(images.facts),
        "blocks": [dataclasses.asdict(loss) for loss in losses],
    }
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    with replacing(plot) as temporary:
        write_plot(losses, temporary)
    click.echo(f"{output}, {plot}")


def _print(losses: Sequence["BlockLoss"]) -> None:
    click.echo("points lost by this block alone   GMAC     PQ fp16  mIoU fp16   error     PQ int8  mIoU int8   error")
    by_block: dict[str, list[BlockLoss]] = {}
    for entry in losses:
        by_block.setdefault(entry.block, []).append(entry)
    for block, entries in by_block.items():
        cells = "".join(f"{e.loss.pq:11.2f}{e.loss.miou:11.2f}{e.loss.error:8.4f}" for e in entries)
        click.echo(f"  {block:<26}{entries[0].gmac:10.3f} {cells}")
