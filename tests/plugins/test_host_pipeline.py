"""Frames and masks on the CPU with the compiled library, which a segmenter takes where there is one."""

from pathlib import Path

import numpy as np
import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.types import Task, Thresholds
from proscale_deploy.runtime import host_pipeline
from proscale_deploy.runtime.segmenter import Segmenter
from support.color_model import ColorSession, picture
from support.engine_checks import check_result, noise

FRAMES = [picture(), picture(64, 96), noise(), noise(31, 500), noise(300, 200)[::-1, 20:], picture(480, 640)]
SEMANTIC_ONLY = Thresholds(tasks=("semantic",), resize_masks_first=False)


@pytest.mark.parametrize(
    ("task", "thresholds"),
    [("panoptic", None), ("instance", None), ("semantic", None), ("semantic", SEMANTIC_ONLY)],
)
def test_results_are_those_without_it(
    host_library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: Task, thresholds: Thresholds | None
) -> None:
    monkeypatch.setenv("PROSCALE_PLUGIN", str(tmp_path))  # none
    plain = Segmenter(ColorSession(), thresholds)  # type: ignore[arg-type]
    expected = plain.batch(FRAMES, task)
    monkeypatch.setenv("PROSCALE_PLUGIN", str(host_library))
    monkeypatch.delattr(host_pipeline, "preprocess")
    monkeypatch.delattr(host_pipeline, "postprocess")
    compiled = Segmenter(ColorSession(), thresholds)  # type: ignore[arg-type]
    for found, other in zip(compiled.batch(FRAMES, task), expected, strict=True):
        check_result(found, other)
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), None):
        with pytest.raises(InputError):
            compiled.submit([wrong], task)  # type: ignore[list-item]


def test_a_library_that_does_not_load_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "libproscale_host.so").write_bytes(b"no library")
    monkeypatch.setenv("PROSCALE_PLUGIN", str(tmp_path))
    found = Segmenter(ColorSession())(picture(), "panoptic")  # type: ignore[arg-type]
    assert found.map.any()  # type: ignore[union-attr]
