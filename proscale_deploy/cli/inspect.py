"""``inspect``: what is inside a model file."""

import collections
import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from proscale_deploy.cli.options import model_argument
from proscale_deploy.core.manifest import Manifest


@click.command()
@model_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(model: Path, as_json: bool) -> None:
    """Show what is inside MODEL, without running it."""
    from proscale_deploy.core.model_file import read_model

    graph, manifest = read_model(model)
    facts = {
        "file": str(model),
        "bytes": model.stat().st_size,
        "opset": {entry.domain or "ai.onnx": entry.version for entry in graph.opset_import},
        "stored_numbers": sum(_elements(tensor.dims) for tensor in graph.graph.initializer),
        "nodes": dict(collections.Counter(node.op_type for node in graph.graph.node).most_common()),
        **dataclasses.asdict(manifest),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        _print(facts, manifest)


def _elements(dims: Any) -> int:
    count = 1
    for size in dims:
        count *= size
    return count


def _print(facts: dict[str, Any], manifest: Manifest) -> None:
    spec, thresholds = manifest.input, manifest.thresholds
    things = sum(info.is_thing for info in manifest.classes)
    nodes = facts["nodes"]
    rows = {
        "file": f"{facts['file']}, {facts['bytes'] / 1e6:.1f} MB",
        "architecture": manifest.architecture,
        "precision": manifest.precision,
        "input": f"image (batch, 3, {spec.height}, {spec.width}) float32 {spec.channels}, "
        f"mean {_numbers(spec.mean)}, std {_numbers(spec.std)}",
        "resizing": f"shortest edge {spec.shortest_edge}, longest at most {spec.longest_edge}, or what fits the input",
        "outputs": f"class_logits (batch, {manifest.queries}, {len(manifest.classes) + 1}), "
        f"mask_logits (batch, {manifest.queries}, {spec.height // 4}, {spec.width // 4})",
        "tasks": ", ".join(thresholds.tasks),
        "thresholds": f"object mask {thresholds.object_mask:g}, overlap {thresholds.overlap:g}, "
        f"at most {thresholds.max_instances} instances",
        "stored": f"{facts['stored_numbers'] / 1e6:.1f} million numbers, parameters and constants",
        "nodes": f"{sum(nodes.values())}: " + ", ".join(f"{count} {name}" for name, count in nodes.items()),
        "opset": ", ".join(f"{domain} {version}" for domain, version in facts["opset"].items()),
        "configuration": f"sha256 {manifest.config_sha256}",
        "weights": f"sha256 {manifest.weights_sha256}",
        "written by": f"proscale-deploy {manifest.version}",
        "classes": f"{len(manifest.classes)}, {things} of them things (*): "
        + ", ".join(f"{info.name}{'*' * info.is_thing}" for info in manifest.classes),
    }
    for name, value in rows.items():
        click.echo(click.wrap_text(value, 100, f"{name:<15}", " " * 15))


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
