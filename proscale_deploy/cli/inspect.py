"""``inspect``: what is inside a model file."""

import collections
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proscale_deploy.cli.options import model_argument
from proscale_deploy.core.manifest import Manifest

if TYPE_CHECKING:
    from proscale_deploy.core.sidecar import Sidecar

Rows = dict[str, str]


@click.command()
@model_argument
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(model: Path, as_json: bool) -> None:
    """Show what is inside MODEL, an .onnx or .engine file, without running it."""
    facts, rows = _of_engine(model) if model.suffix.lower() == ".engine" else _of_onnx(model)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for name, value in rows.items():
        click.echo(click.wrap_text(value, 100, f"{name:<15}", " " * 15))


def _of_onnx(path: Path) -> tuple[dict[str, Any], Rows]:
    from proscale_deploy.core.model_file import read_model

    graph, manifest = read_model(path)
    nodes = dict(collections.Counter(node.op_type for node in graph.graph.node).most_common())
    opset = {entry.domain or "ai.onnx": entry.version for entry in graph.opset_import}
    types = _types(graph)
    stored = sum(math.prod(tensor.dims) for tensor in graph.graph.initializer)
    facts = {
        **_file_facts(path),
        "opset": opset,
        "stored_numbers": stored,
        "nodes": nodes,
        "computes_in": types,
        **dataclasses.asdict(manifest),
    }
    rows = {
        "file": _file_text(path),
        **_model_rows(manifest),
        "computes in": f"{_shares(types)} of convolutions and matrix products",
        "stored": f"{stored / 1e6:.1f} million numbers, parameters and constants",
        "nodes": f"{sum(nodes.values())}: " + ", ".join(f"{count} {name}" for name, count in nodes.items()),
        "opset": ", ".join(f"{domain} {version}" for domain, version in opset.items()),
        **_origin_rows(manifest),
    }
    return facts, rows


def _of_engine(path: Path) -> tuple[dict[str, Any], Rows]:
    from proscale_deploy.core.model_file import check_model_file
    from proscale_deploy.core.sidecar import read_sidecar

    check_model_file(path)
    sidecar = read_sidecar(path)
    facts = {**_file_facts(path), **dataclasses.asdict(sidecar)}
    manifest = sidecar.manifest
    return facts, engine_rows(path, sidecar) | _model_rows(manifest) | _origin_rows(manifest)


def engine_rows(path: Path, sidecar: "Sidecar") -> Rows:
    """What is known of an engine besides what its model says of itself."""
    precision, plugin, device = sidecar.precision, sidecar.plugin, sidecar.gpu or "a machine without a GPU"
    smallest, best, largest = sidecar.batch
    limit = "no limit" if sidecar.workspace is None else f"{sidecar.workspace >> 20} MiB"
    return {
        "file": _file_text(path),
        "built with": f"{sidecar.backend} {sidecar.backend_version} on {device}, {sidecar.platform}, in "
        f"{sidecar.seconds:.1f} s; optimization level {sidecar.optimization_level}, workspace {limit}",
        "runs on": _runs_on(sidecar),
        "batch": f"{smallest} to {largest}, best {best}" if smallest < largest else f"{best}",
        "plugin": f"{plugin.name} {plugin.version}, sha256 {plugin.sha256}" if plugin else "none",
        "computes in": f"{_shares(precision.critical)} of layers with convolutions and matrix products"
        + (f", on all targets as on the oldest, {min(sidecar.targets, key=float)}" if len(sidecar.targets) > 1 else "")
        + f"; in the ONNX file {_shares(precision.in_file)} of nodes",
        "as in the file": _kept(precision.kept),
        "layers": f"{_shares(precision.layers)}, by the {precision.evidence}",
        "engine": f"sha256 {sidecar.engine_sha256}",
        "ONNX file": f"sha256 {sidecar.onnx_sha256}",
        "built by": f"proscale-deploy {sidecar.version}",
    }


def _kept(kept: Mapping[str, tuple[int, int]]) -> str:
    """ "74 of 131 INT8 nodes (56 %, at least 50 %), 53 of 53 FP16 nodes (100 %, at least 90 %)"."""
    from proscale_deploy.export.engine_layers import LEAST_SHARE

    return ", ".join(
        f"{built} of {told} {type_} nodes ({100 * built / told:.0f} %"
        + (f", at least {100 * LEAST_SHARE[type_]:.0f} %)" if type_ in LEAST_SHARE else ")")
        for type_, (built, told) in kept.items()
    )


def _runs_on(sidecar: "Sidecar") -> str:
    if sidecar.backend == "tensorrt-rtx":
        gpus = f"compute capability {', '.join(sidecar.targets) or '8.0 and later'}"
    elif sidecar.hardware_compatibility == "ampere-plus":
        gpus = "compute capability 8.0 and later"
    else:
        gpus = f"compute capability {sidecar.compute_capability}"
    later = " and later of the same major number" if sidecar.version_compatible else ""
    return f"{gpus}; {sidecar.backend} {sidecar.backend_version}{later}"


def _model_rows(manifest: Manifest) -> Rows:
    spec, thresholds = manifest.input, manifest.thresholds
    number = "float16" if manifest.conversion and manifest.conversion.io == "fp16" else "float32"
    return {
        "architecture": manifest.architecture,
        "precision": manifest.precision + _reduction(manifest),
        "input": f"image (batch, 3, {spec.height}, {spec.width}) {number} {spec.channels}, "
        f"mean {_numbers(spec.mean)}, std {_numbers(spec.std)}",
        "resizing": f"shortest edge {spec.shortest_edge}, longest at most {spec.longest_edge}, or what fits the input",
        "outputs": f"class_logits (batch, {manifest.queries}, {len(manifest.classes) + 1}), "
        f"mask_logits (batch, {manifest.queries}, {spec.height // 4}, {spec.width // 4})",
        "tasks": ", ".join(thresholds.tasks),
        "thresholds": f"object mask {thresholds.object_mask:g}, overlap {thresholds.overlap:g}, "
        f"at most {thresholds.max_instances} instances",
    }


def _origin_rows(manifest: Manifest) -> Rows:
    things = sum(info.is_thing for info in manifest.classes)
    return {
        "configuration": f"sha256 {manifest.config_sha256}",
        "weights": f"sha256 {manifest.weights_sha256}",
        "written by": f"proscale-deploy {manifest.version}",
        "classes": f"{len(manifest.classes)}, {things} of them things (*): "
        + ", ".join(f"{info.name}{'*' * info.is_thing}" for info in manifest.classes),
    }


def _types(graph: Any) -> dict[str, int]:
    from proscale_deploy.export.engine_graph import critical_types

    types = critical_types(graph, plugin=False).values()
    return dict(collections.Counter(types).most_common())


def _shares(counts: Any) -> str:
    """ "98 % FP16 (160), 2 % FP32 (4)"."""
    total = sum(counts.values())
    return ", ".join(f"{100 * count / total:.0f} % {name} ({count})" for name, count in counts.items()) or "none"


def _file_facts(path: Path) -> dict[str, Any]:
    return {"file": str(path), "bytes": path.stat().st_size}


def _file_text(path: Path) -> str:
    return f"{path}, {path.stat().st_size / 1e6:.1f} MB"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _reduction(manifest: Manifest) -> str:
    conversion = manifest.conversion
    if conversion is None:
        return ""
    kept: dict[str, list[str]] = {}
    for block, of_block in conversion.blocks:
        kept.setdefault(of_block, []).append(block)
    facts = [f"{of} in {', '.join(blocks)}" for of, blocks in kept.items() if of != manifest.precision]
    facts += [f"without {pattern}" for pattern in conversion.excluded]
    if of := conversion.calibration:
        facts.append(f"ranges from {of.images} images of {of.source}, sha256 {of.sha256}")
    return "".join(f"; {fact}" for fact in facts)
