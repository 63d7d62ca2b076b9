"""The report of ``verify`` as a browser lays it out."""

from pathlib import Path

import numpy as np
import pytest

from proscale_deploy.core.types import RawOutput
from proscale_deploy.export.report import Exhibit, page
from proscale_deploy.export.verify import LIMITS, Comparison, View
from proscale_deploy.export.verify_drill import ModuleError
from support.chromium import PROGRAM, chromium
from support.results import CLASSES

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt install chromium")


def test_long_names_do_not_make_the_page_wide(tmp_path: Path) -> None:
    long = "a_very_long_name_of_one_word" * 8
    node = f"/predictor/{long}/multihead_attn/out_proj"
    a, b = (View(RawOutput(np.full((2, 4), x, np.float32), np.ones((2, 4, 4), np.float32)), {}) for x in (1, 2))
    comparison = Comparison(CLASSES, ())
    comparison.add(f"{long}.png", a, b)
    result = comparison.result()
    modules = [ModuleError(node, f"{node}/Add", "Add", (1, 100, 256), 0.5, 0.9)]
    exhibits = [Exhibit(long, {f"A, {long}": np.zeros((90, 160, 3), np.uint8)})]
    facts = {"A": f"/models/{long}.onnx", "pictures": f"1 of {long}"}
    text = page(f"{long} against b", facts, result, result.checks(LIMITS["fp32"]), exhibits, modules, modules[0])
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    with chromium(tmp_path) as browser:
        for width in (1100, 400):
            browser.resize(width, 900)
            browser.open(f"file://{tmp_path}/report.html")
            root = "document.documentElement"
            assert browser.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
        assert browser.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert not browser.problems
