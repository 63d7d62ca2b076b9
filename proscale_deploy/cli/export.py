"""``export``: a trained checkpoint becomes one ONNX file."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from proscale_deploy.cli.agreement import judge_of
from proscale_deploy.cli.calibration import read_calibration
from proscale_deploy.cli.options import SIZE, calibration_option
from proscale_deploy.cli.progress import show_progress
from proscale_deploy.cli.stations import is_weights
from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.files import check_not_input, check_output
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import Size

if TYPE_CHECKING:
    import onnx

    from proscale_deploy.export.calibration import CalibrationImages
    from proscale_deploy.export.precision import Precision, Recipe
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
    type=click.Choice(("fp32", "fp16", "int8", "auto")),
    default="fp32",
    help="Of the file: types and quantization stand in the graph. int8 is FP16 with INT8 where it gains; auto is the "
    "cheapest mix within --tolerance.",
)
@calibration_option(
    required=False, help_text="Real pictures that INT8's ranges come from; needed for int8 and auto, of use for fp16."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, max=100),
    metavar="PQ_POINTS",
    help="For auto: how far results may differ from those of FP32, 100 less the panoptic quality between them.",
)
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
    precision: str,
    calibration: str | None,
    tolerance: float | None,
    exclude: tuple[str, ...],
    io: str,
) -> None:
    """Write a trained PRO-SCALE or Mask2Former model as one ONNX file.

    The file is compared with PyTorch before it gets its name.

    \b
      proscale-deploy export --config config.yaml --weights model_final.pth --size 800x1344 --output model.onnx
      ... --precision int8 --calibration pictures/
    """
    _check_precision(precision, calibration, tolerance, exclude, io)
    _check_not_swapped(config, weights)
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
        from proscale_deploy.export.to_onnx import export_onnx, make_manifest, round_up_size
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
    manifest = make_manifest(settings, classes, rounded, loaded.sha256)
    images = read_calibration(calibration, manifest.input) if calibration else None
    recipe = _recipe(manifest, precision, images, tolerance, exclude, io == "fp16")
    summary = export_onnx(
        settings,
        model,
        classes,
        output,
        size=rounded,
        weights_sha256=loaded.sha256,
        recipe=recipe,
        progress=show_progress,
    )
    _print(summary)


def _check_not_swapped(config: Path, weights: Path) -> None:
    if is_weights(config) and weights.suffix.lower() in (".yaml", ".yml"):
        right = shlex.join(["--config", str(weights), "--weights", str(config)])
        raise InputError(f"{config} is a file of weights and {weights} a YAML; type {right}")


def _check_precision(
    precision: str, calibration: str | None, tolerance: float | None, exclude: tuple[str, ...], io: str
) -> None:
    if precision == "fp32" and (calibration or exclude or io != "fp32"):
        raise click.UsageError("--calibration, --exclude and --io are for --precision fp16, int8 and auto")
    if precision in ("int8", "auto") and not calibration:
        raise click.UsageError(
            f"--precision {precision} needs --calibration: a folder, a glob or a video of pictures as the model will "
            "see them"
        )
    if (precision == "auto") != (tolerance is not None):
        raise click.UsageError("--precision auto and --tolerance go together, for instance --tolerance 2")


def _recipe(
    manifest: Manifest,
    precision: str,
    images: "CalibrationImages | None",
    tolerance: float | None,
    exclude: tuple[str, ...],
    half_io: bool,
) -> "Callable[[onnx.ModelProto], Recipe] | None":
    """What to make of the FP32 graph, when it is there."""
    from proscale_deploy.export.precision import Recipe
    from proscale_deploy.export.sensitivity import Laboratory, choose

    if precision == "fp32":
        return None
    if images is None or tolerance is None:
        return lambda graph: Recipe(cast("Precision", precision), exclude, half_io, images)

    def automatic(graph: "onnx.ModelProto") -> Recipe:
        laboratory = Laboratory(graph, images, judge_of(manifest), exclude, show_progress)
        blocks, loss = choose(laboratory, tolerance, show_progress)
        _say(f"this mix differs from FP32 by {loss.pq:.2f} points of PQ, {loss.miou:.2f} of mIoU:")
        for level in ("int8", "fp16", "fp32"):
            if chosen := [block for block, of_block in blocks.items() if of_block == level]:
                _say(f"  {level}: {', '.join(chosen)}")
        return Recipe("int8", exclude, half_io, images, blocks, laboratory.ranges)

    return automatic


def _say(what: str) -> None:
    click.echo(f"     {what}")


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
