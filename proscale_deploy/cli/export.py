"""``export``: a trained checkpoint becomes one ONNX file."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proscale_deploy.cli.options import SIZE
from proscale_deploy.core.errors import InputError, MissingDependency
from proscale_deploy.core.files import check_not_input, check_output
from proscale_deploy.core.types import Size

if TYPE_CHECKING:
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
def export(config: Path, weights: Path, size: Size | None, output: Path, class_file: Path | None) -> None:
    """Write a trained PRO-SCALE or Mask2Former model as one ONNX file.

    The file is compared with PyTorch before it gets its name.

    \b
      proscale-deploy export --config config.yaml --weights model_final.pth --size 800x1344 --output model.onnx
    """
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
    _print(export_onnx(settings, model, classes, output, size=rounded, weights_sha256=loaded.sha256))


def _print(summary: "Summary") -> None:
    parts = ", ".join(f"{part} {count / 1e9:.3g}" for part, count in summary.macs.items())
    rows = {
        "file": f"{summary.output}, {summary.bytes / 1e6:.1f} MB",
        "nodes": f"{summary.nodes}, {summary.operator_nodes} of them ProScaleMSDeformAttn",
        "parameters": f"{summary.parameters / 1e6:.1f} million",
        "GMAC": f"{summary.gmac:.4g} for one image: {parts}",
        "error": f"{summary.error:.1e} relative to PyTorch",
        "seconds": f"{summary.seconds:.0f}",
        "next": f"proscale-deploy predict {shlex.quote(str(summary.output))} IMAGE_OR_VIDEO",
    }
    for name, value in rows.items():
        click.echo(f"     {name:<12}{value}")


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
