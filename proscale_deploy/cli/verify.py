"""``verify``: two forms of one model, on the same pictures."""

import dataclasses
import heapq
import itertools
import json
import math
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proscale_deploy.cli.stations import check_weights_options, described, has_engine, open_both, station_options
from proscale_deploy.core.errors import InputError, MissingDependency, VerificationFailed
from proscale_deploy.core.files import check_not_input, check_output, replacing
from proscale_deploy.core.manifest import Manifest
from proscale_deploy.core.types import Placement, RawOutput, Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from proscale_deploy.export.report import Exhibit
    from proscale_deploy.export.verify import Check, Verification, View
    from proscale_deploy.export.verify_drill import ModuleError
    from proscale_deploy.runtime.session import Session
    from proscale_deploy.runtime.streams.source import Frame, Source

__all__ = ["compare", "print_result", "refuse_exceeded", "verify"]

_SHOWN = 4
"""Pictures in the report: those with the largest errors."""

_FEW = 8
"""Pictures: with fewer the median may be one that stands out by chance, see ``export.verify.Limits``."""


@dataclass(frozen=True)
class _Compared:
    """A picture that may be shown."""

    name: str
    image: "NDArray[np.uint8]"
    placement: Placement
    a: "View"
    b: "View"


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Real pictures: an image, a folder, a glob in quotes, or a video.")
@click.option("--frames", "most", type=click.IntRange(1), default=32, help="Pictures to compare, spread over the data.")
@station_options
@click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Replaces a limit: --limit pq=98.")
@click.option("--drill", is_flag=True, help="Two ONNX files: find the first module where they part.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default="verification.html",
    help="The report; the figures are written beside it as JSON.",
)
def verify(
    a: Path,
    b: Path,
    data: str,
    most: int,
    config: Path | None,
    class_file: Path | None,
    limits: tuple[str, ...],
    drill: bool,
    output: Path,
) -> None:
    """Compare B with A, taken as the truth: outputs, and results in task metrics.

    A and B are exported files, engines, or the trained weights, which PyTorch runs with their YAML. Exits with status 1
    where B is further from A than the precision of the less exact of the two allows. A CPU computes FP16 in FP32: of
    .onnx files with FP16 every result is rounded here as a GPU would round it, unless an engine is compared.

    \b
      proscale-deploy verify model_final.pth model.onnx --config config.yaml --data images/
      proscale-deploy verify model.onnx model_fp16.onnx --data drive.mp4 --drill
      proscale-deploy verify model.onnx model.engine --data images/
    """
    figures = output.with_suffix(".json")
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {output}: expected an HTML file, for instance verification.html")
    for path in (output, figures):
        check_not_input([path], [path for path in (a, b, config, class_file) if path])
        check_output(path)
    if drill and {a.suffix, b.suffix} != {".onnx"}:
        raise InputError(f"--drill compares two .onnx files, found {a.name} and {b.name}; leave it out")
    check_weights_options((a, b), {"--config": config, "--classes": class_file})
    try:
        from proscale_deploy.export.report import page
        from proscale_deploy.export.verify import Limits, check_comparable, limits_for
        from proscale_deploy.export.verify_drill import DRILL_LIMITS, first_parting
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "a package", "export", "proscale-deploy verify") from error
    from proscale_deploy.runtime.streams.source import open_source

    replaced = _parsed(limits, [field.name for field in dataclasses.fields(Limits)])
    with ExitStack() as stack:
        source = stack.enter_context(open_source(data))
        first, second = (stack.enter_context(session) for session in open_both(a, b, config, class_file))
        manifest = first.manifest
        check_comparable(manifest, second.manifest)
        precision, allowed = limits_for(manifest, second.manifest)
        allowed = dataclasses.replace(allowed, **replaced)
        rounding = not has_engine(a, b)
        stations = {"A": described(a, first, rounding), "B": described(b, second, rounding)}
        for name, description in stations.items():
            click.echo(f"{name}: {description}")
        if manifest.weights_sha256 != second.manifest.weights_sha256:
            click.secho("A and B were made from different weights", fg="yellow", err=True)
        result, shown = compare(first, second, source, most, manifest.thresholds.tasks)
    for problem in (*source.warnings, *source.skipped):
        click.secho(problem, fg="yellow", err=True)
    modules = _drill(a, b, shown[0]) if drill else []
    parting = first_parting(modules, DRILL_LIMITS[precision])

    checks = result.checks(allowed)
    passed = all(check.passed for check in checks)
    facts = {**stations, "pictures": f"{len(result.frames)} of {data}", "limits": f"of {precision}"}
    title = f"{b.name} against {a.name}"
    with replacing(output) as temporary:
        exhibits = [_exhibit(compared, manifest) for compared in shown]
        temporary.write_text(page(title, facts, result, checks, exhibits, modules, parting), encoding="utf-8")
    with replacing(figures) as temporary:
        content = {**facts, "passed": passed, **_figures(result, checks), "modules": list(map(vars, modules))}
        temporary.write_text(json.dumps(_for_json(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print_result(result, checks)
    _print_modules(modules, parting, DRILL_LIMITS[precision])
    click.echo(f"\nwrote {output} and {figures}")
    advice = f"see {output}"
    if len(result.frames) < _FEW:
        advice += f"; one of {len(result.frames)} pictures decides much: give more --data"
    refuse_exceeded(checks, f"{b} differs from {a} by more than {precision} should", advice)


def compare(
    first: "Session", second: "Session", source: "Source", most: int, tasks: Sequence[Task]
) -> "tuple[Verification, list[_Compared]]":
    """All pictures, and those with the largest errors, the worst first; both postprocessed by the thresholds of A.

    Args:
        first: A.
        second: B.
        source: the pictures.
        most: of them that are compared.
        tasks: whose results are compared; none: the outputs alone.
    """
    from proscale_deploy.export.verify import Comparison, View, finite
    from proscale_deploy.runtime.postprocess import postprocess
    from proscale_deploy.runtime.preprocess import preprocess

    manifest = first.manifest
    comparison = Comparison(manifest.classes, tasks)

    def view(raw: RawOutput, usable: RawOutput, placement: Placement) -> View:
        return View(
            raw, {task: postprocess(usable, placement, manifest.classes, manifest.thresholds, task) for task in tasks}
        )

    worst: list[tuple[float, int, _Compared]] = []
    count = min(most, source.length) if source.length else most
    with click.progressbar(_spread(source, most), length=count, label="comparing") as bar:
        for number, frame in enumerate(bar):
            image, placement = preprocess(frame.image, manifest.input)
            (a,), (b,) = first.run(image[None]), second.run(image[None])
            compared = _Compared(
                frame.name, frame.image, placement, view(a, a, placement), view(b, finite(b), placement)
            )
            error = comparison.add(frame.name, compared.a, compared.b).worst
            heapq.heappush(worst, (error, number, compared))
            if len(worst) > _SHOWN:
                heapq.heappop(worst)
    shown = sorted(worst, key=lambda entry: entry[:2], reverse=True)
    return comparison.result(), [compared for _, _, compared in shown]


def _parsed(limits: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    parsed = {}
    for text in limits:
        name, _, value = text.partition("=")
        try:
            parsed[name] = float(value)
        except ValueError:
            parsed[name] = float("nan")
        if name not in names or parsed[name] != parsed[name]:
            raise InputError(f"--limit {shlex.quote(text)}: expected NAME=NUMBER, with a name of {', '.join(names)}")
    return parsed


def _spread(source: "Source", most: int) -> "Iterator[Frame]":
    """At most so many frames, evenly spread where the length is known, else the first."""
    length = source.length
    wanted = {index * length // most for index in range(most)} if length and length > most else None
    chosen = (frame for index, frame in enumerate(source) if wanted is None or index in wanted)
    return itertools.islice(chosen, most)


def _drill(a: Path, b: Path, compared: _Compared) -> "list[ModuleError]":
    from proscale_deploy.core.model_file import read_model
    from proscale_deploy.export.verify_drill import drill
    from proscale_deploy.runtime.preprocess import preprocess

    (first, manifest), (second, _) = read_model(a), read_model(b)
    image, _ = preprocess(compared.image, manifest.input)
    with click.progressbar(length=1, label="drilling") as bar:

        def progress(done: int, of: int) -> None:
            bar.length = of
            bar.update(done - bar.pos)

        return drill(first, second, image, progress)


def _exhibit(compared: _Compared, manifest: Manifest) -> "Exhibit":
    from proscale_deploy.export.report import Exhibit
    from proscale_deploy.export.report_pictures import class_error_map, differing_pixels, mask_error_map
    from proscale_deploy.runtime.draw import overlay

    a, b, task = compared.a, compared.b, manifest.thresholds.tasks[0]
    differing, share = differing_pixels(compared.image, a.results[task], b.results[task])
    masks, mask_error = mask_error_map(a.raw, b.raw, compared.placement)
    classes, class_error = class_error_map(a.raw, b.raw)
    return Exhibit(
        compared.name,
        {
            f"A, {task}": overlay(compared.image, a.results[task], manifest.classes),
            f"B, {task}": overlay(compared.image, b.results[task], manifest.classes),
            f"another class in B: {share:.2f} % of the pixels": differing,
            f"mask_logits: root mean square error over the queries; brightest {mask_error:.3g}": masks,
            f"class_logits: error; a row per query, a column per class; brightest {class_error:.3g}": classes,
        },
    )


def _figures(result: "Verification", checks: "Sequence[Check]") -> dict[str, Any]:
    return {
        "checks": [dataclasses.asdict(check) for check in checks],
        "agreement": result.agreement,
        "outputs": {name: dataclasses.asdict(error) for name, error in result.summary().items()},
        "frames": [dataclasses.asdict(frame) for frame in result.frames],
    }


def _for_json(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {key: _for_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_for_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refuse_exceeded(checks: "Sequence[Check]", what: str, advice: str) -> None:
    """Raise VerificationFailed unless all limits are kept."""
    exceeded = ", ".join(f"{c.name} {c.found:.4g} (limit {c.limit:g})" for c in checks if not c.passed)
    if exceeded:
        raise VerificationFailed(f"{what}: {exceeded}; {advice}")


def print_result(result: "Verification", checks: "Sequence[Check]") -> None:
    click.echo(f"\n  {'error of B':<14}{'max abs':>10}{'mean abs':>10}{'p99.9 abs':>10}{'L2':>10}{'1-cosine':>10}")
    for name, e in result.summary().items():
        columns = (e.max_absolute, e.mean_absolute, e.p999_absolute, e.l2, 1 - e.cosine)
        click.echo(f"  {name:<14}" + "".join(f"{value:10.2g}" for value in columns))
    click.echo(f"\n  {'check':<14}{'found':>10}{'limit':>10}")
    for check in checks:
        found = "-" if check.found is None else f"{check.found:.4g}"
        word = "nothing to judge by" if check.found is None else "kept" if check.passed else "EXCEEDED"
        click.echo(f"  {check.name:<14}{found:>10}{check.limit:>10g}  {word}")
    if overflowed := sum(math.isinf(frame.worst) for frame in result.frames):
        of = f"{overflowed} of {len(result.frames)} pictures"
        click.secho(f"B's outputs hold NaN or infinite values on {of}: it has overflowed", fg="yellow", err=True)
    if any(check.found is None for check in checks):
        click.secho("A finds nothing on these pictures: give --data like what it was trained on", fg="yellow", err=True)


def _print_modules(modules: "Sequence[ModuleError]", parting: "ModuleError | None", limit: float) -> None:
    if parting is not None:
        position = modules.index(parting)
        click.echo(f"\n  they part in {parting.module}; L2 errors around it:")
        for module in modules[max(0, position - 3) : position + 4]:
            mark = ">" if module is parting else " "
            click.echo(f"  {mark} {module.l2:8.1e}  {module.node}")
    elif modules:
        largest = max(modules, key=lambda module: module.l2)
        click.echo(
            f"\n  none of {len(modules)} tensors that leave a module is off by more than {limit:g}; the most is "
            f"{largest.l2:.1e}, in {largest.node}"
        )
