"""A verification as one HTML page that needs no other file."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from string import Template
from typing import Final

import cv2
import numpy as np

from proscale_deploy.export.report_pictures import Picture
from proscale_deploy.export.verify import Check, Verification
from proscale_deploy.export.verify_drill import ModuleError

__all__ = ["Exhibit", "page"]

_WIDTH: Final = 720
"""Pixels of a picture on the page, at most."""


@dataclass(frozen=True)
class Exhibit:
    """What is shown of one picture: captions -> pictures, in their order."""

    name: str
    pictures: Mapping[str, Picture]


def page(
    title: str,
    facts: Mapping[str, str],
    verification: Verification,
    checks: Sequence[Check],
    exhibits: Sequence[Exhibit],
    modules: Sequence[ModuleError] = (),
    parting: ModuleError | None = None,
) -> str:
    """The page.

    Args:
        title: one line.
        facts: what was compared, on what.
        verification: the figures.
        checks: the limits, and whether they are kept.
        exhibits: pictures, the worst first.
        modules: of ``--drill``; none: not asked for.
        parting: the first of them that is off by more than its limit.
    """
    passed = all(check.passed for check in checks)
    return _PAGE.substitute(
        title=_text(title),
        verdict="passed" if passed else "failed",
        verdict_text="Within all limits." if passed else "B is further from A than the limits allow.",
        facts=_rows(list(facts.items())),
        checks=_rows([(c.name, _figure(c.found), _figure(c.limit), _judged(c)) for c in checks]),
        agreement=_rows([(name, _figure(value)) for name, value in verification.agreement.items()]),
        outputs=_rows([(name, *map(_figure, astuple(e))) for name, e in verification.summary().items()]),
        frames=_rows([(f.name, *(_figure(e.l2) for e in f.outputs.values())) for f in verification.frames]),
        names="".join(f"<th>{_text(name)}</th>" for name in verification.frames[0].outputs),
        exhibits="".join(map(_exhibit, exhibits)),
        drill=_drilled(modules, parting) if modules else "",
    )


def _exhibit(exhibit: Exhibit) -> str:
    figures = "".join(
        f'<figure><img src="{_data(picture)}" alt="{_text(caption)}"><figcaption>{_text(caption)}</figcaption></figure>'
        for caption, picture in exhibit.pictures.items()
    )
    return f'<h3>{_text(exhibit.name)}</h3><div class="pictures">{figures}</div>'


def _data(picture: Picture) -> str:
    """A picture as a URL that holds it."""
    height, width = picture.shape[:2]
    if width > _WIDTH:
        size = _WIDTH, max(1, height * _WIDTH // width)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _drilled(modules: Sequence[ModuleError], parting: ModuleError | None) -> str:
    found = f"They part in <b>{_text(parting.module)}</b>." if parting else "No module is off by more than the limit."
    rows = []
    for module in modules:
        shape = "x".join(map(str, module.shape))
        cells = _cells(
            (module.module, module.node.rpartition("/")[2], shape, _figure(module.l2), _figure(module.cosine))
        )
        rows.append(f"<tr class='parting'>{cells}</tr>" if module is parting else f"<tr>{cells}</tr>")
    head = "<tr><th>module</th><th>node</th><th>shape</th><th>L2 error</th><th>cosine</th></tr>"
    table = f"<table><thead>{head}</thead>{''.join(rows)}</table>"
    return f"<h2>Module by module, on the worst picture</h2><p>{found}</p>{table}"


def _judged(check: Check) -> str:
    if check.found is None:
        return "nothing to judge by"
    return "kept" if check.passed else "EXCEEDED"


def _rows(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"<tr>{_cells(row)}</tr>" for row in rows)


def _cells(row: Sequence[str]) -> str:
    return "".join(f"<td>{_text(cell)}</td>" for cell in row)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _text(text: str) -> str:
    return html.escape(text)


_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  :root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } h3 { font-size: 1rem; margin-bottom: .3rem }
  table { display: block; overflow-x: auto; border-collapse: collapse; font-variant-numeric: tabular-nums }
  th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line) }
  th:first-child, td:first-child, .facts td { text-align: left }
  h1, h3, p, figcaption, td:first-child, .facts td { overflow-wrap: anywhere } td:first-child { min-width: 8rem }
  .verdict { font-weight: 600; padding: .5rem 1rem; border-left: .4rem solid }
  .passed { border-color: #2a9d4a } .failed { border-color: #d33 } .parting td { background: #d3333340 }
  .pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem }
  figure { margin: 0 } img { width: 100%; max-height: 24rem; object-fit: contain } small, figcaption { opacity: .75 }
</style>
<h1>$title</h1>
<p class="verdict $verdict">$verdict_text</p>
<table class="facts">$facts</table>

<h2>Limits</h2>
<table><thead><tr><th></th><th>found</th><th>limit</th><th></th></tr></thead>$checks</table>
<p><small>class_logits, mask_logits: median over the pictures of |B - A| / |A| (L2). pq, miou, ap: least, in percent, of
B's results with A's taken as the truth.</small></p>

<h2>Agreement in task metrics</h2>
<table>$agreement</table>

<h2>Errors of the outputs</h2>
<table><thead><tr><th></th><th>max abs</th><th>mean abs</th><th>p99.9 abs</th><th>max rel</th>
<th>mean rel</th><th>p99.9 rel</th><th>L2</th><th>cosine</th></tr></thead>$outputs</table>
<p><small>Over all pictures: means are averaged, of the rest the worst. Relative: |b - a| / max(|a|, rms(A)).</small>
</p>

<h2>The worst pictures</h2>
$exhibits
$drill
<h2>L2 error of every picture</h2>
<table><thead><tr><th></th>$names</tr></thead>$frames</table>
</html>
""")
