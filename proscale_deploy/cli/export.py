"""``export``: a trained checkpoint becomes one ONNX file."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proscale_deploy.cli.calibration import read_calibration
from proscale_deploy.cli.options import SIZE, calibration_option
from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.files import check_not_input, check_output
from proscale_deploy.core.types import Size

if TYPE_CHECKING:
    from proscale_deploy.export.precision import Precision
    from proscale_deploy.export.summary import Summary


@click.command()
@click.option("--config", required=True, type=click.Path(path_type=Path), help="The YAML the model was trained with.")
@click.option("--weights", required=True, type=click.Path(path_type=Path), help="A .pth, .pkl or .safetensors file.")
@click.option(
    "--size",
    type=SIZE,
    help="Of the network's input, for instance 800x1344.  [default: MIN_SIZE_TEST x MAX_SIZE_TEST of the YAML]",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The ONNX file to write.")
@click.option(
    "--classes",
    "class_file",
    type=click.Path(path_type=Path),
    help='The class list of a data set of your own: JSON, [{"name": "road", "thing": false}, ...] in the order of the '
    "labels; color (RGB) and id may be given.  [default: by the data set in the YAML]",
)
@click.option(
    "--precision",
    type=click.Choice(("fp32", "fp16", "int8")),
    default="fp32",
    help="Of the file: types and quantization stand in the graph. int8 is FP16 with INT8 where it gains.",
)
@calibration_option(required=False, help_text="Real pictures that INT8's ranges come from; needed for int8.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Keep nodes of these names, as '/backbone/res2/*', one step higher: FP16 for int8, FP32 for fp16. Repeatable.",
)
@click.option("--io", type=click.Choice(("fp32", "fp16")), default="fp32", help="Type of the input and the outputs.")
def export(
    config: Path,
    weights: Path,
    size: Size | None,
    output: Path,
    class_file: Path | None,
    precision: "Precision",
    calibration: str | None,
    exclude: tuple[str, ...],
    io: str,
) -> None:
    """Write a trained PRO-SCALE or Mask2Former model as one ONNX file.

    The file is compared with PyTorch before it gets its name.

    \b
      proscale-deploy export --config config.yaml --weights model_final.pth --size 800x1344 --output model.onnx
      ... --precision int8 --calibration pictures/
    """
    _check_precision(precision, calibration, exclude, io)
    check_not_input([output], [path for path in (config, weights, class_file) if path])
    check_output(output)
    if output.suffix.lower() != ".onnx":
        onnx = shlex.quote(str(output.with_suffix(".onnx")))
        raise InputError(f"cannot write {output}: export writes ONNX files; type --output {onnx}")
    try:
        from proscale_deploy.export.checkpoint import load_state_dict, load_weights
        from proscale_deploy.export.classes import classes_for
        from proscale_deploy.export.config import architecture_name, load_config
        from proscale_deploy.export.model import build_model
        from proscale_deploy.export.precision import Recipe
        from proscale_deploy.export.to_onnx import export_onnx, round_up_size
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "a package", "export", "proscale-deploy export") from error

    settings = load_config(config)
    classes = classes_for(settings.dataset, class_file, settings.model.num_classes)
    click.echo(f"1/3  {config}: {architecture_name(settings.model)}, {len(classes)} classes")
    model = build_model(settings.model)
    loaded = load_state_dict(weights)
    load_weights(model, loaded)
    click.echo(f"2/3  {weights}: {len(loaded.tensors)} entries, all of them in their place")
    wanted = size or (settings.input.height, settings.input.width)
    rounded = round_up_size(wanted, settings.input.size_divisibility)
    if rounded != wanted:
        click.echo(f"     size {_text(wanted)} rounded up to multiples of {settings.input.size_divisibility}")
    click.echo(f"3/3  tracing and simplifying at {_text(rounded)}, comparing with PyTorch; large models take minutes")
    recipe = None
    if precision != "fp32":
        spec = replace(settings.input, height=rounded[0], width=rounded[1])
        images = read_calibration(calibration, spec) if calibration else None
        recipe = Recipe(precision, exclude, io == "fp16", images)
    summary = export_onnx(
        settings,
        model,
        classes,
        output,
        size=rounded,
        weights_sha256=loaded.sha256,
        recipe=None if recipe is None else lambda graph: recipe,
        progress=lambda stage: click.echo(f"     {stage}"),
    )
    _print(summary)


def _check_precision(precision: str, calibration: str | None, exclude: tuple[str, ...], io: str) -> None:
    if precision == "fp32" and (calibration or exclude or io != "fp32"):
        raise click.UsageError("--calibration, --exclude and --io are for --precision fp16 and int8")
    if precision == "int8" and not calibration:
        raise click.UsageError(
            "--precision int8 needs --calibration: a folder, a glob or a video of pictures as the model will see them"
        )


def _print(summary: "Summary") -> None:
    parts = ", ".join(f"{part} {count / 1e9:.3g}" for part, count in summary.macs.items())
    reduction = summary.reduction
    rows = {
        "file": f"{summary.output}, {summary.bytes / 1e6:.1f} MB",
        "nodes": f"{summary.nodes}, {summary.operator_nodes} of them ProScaleMSDeformAttn",
        "parameters": f"{summary.parameters / 1e6:.1f} million",
        "GMAC": f"{summary.gmac:.4g} for one image: {parts}",
        "error": f"{summary.error:.1e} relative to PyTorch" + (", before the reduction" if reduction else ""),
    }
    if reduction:
        rows["reduction"] = f"{reduction.error:.1e} relative to FP32; {reduction.int8_nodes} nodes in INT8"
        if reduction.fp32_nodes:
            rows["kept in FP32"] = f"{len(reduction.fp32_nodes)} nodes near the end of FP16's range"
    rows["seconds"] = f"{summary.seconds:.0f}"
    rows["next"] = f"proscale-deploy predict {shlex.quote(str(summary.output))} IMAGE_OR_VIDEO"
    for name, value in rows.items():
        click.echo(f"     {name:<12} {value}")


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
