"""Losses block by block, and the choice of a mix."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from proscale_deploy.cli.agreement import judge_of
from proscale_deploy.core.errors import PrecisionError
from proscale_deploy.core.types import RawOutput
from proscale_deploy.export.precision import Precision
from proscale_deploy.export.sensitivity import Agreement, BlockLoss, Laboratory, Loss, choose
from proscale_deploy.export.sensitivity_plot import write_plot
from proscale_deploy.export.summary import count_macs
from support import street


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    images = street.images(1_000_000, 4)
    return Laboratory(street.fp32_graph(), images, judge_of(street.manifest()))


def test_precision_costs_quality(laboratory: Laboratory) -> None:
    full, half, quarter = (laboratory.loss(precision, {}) for precision in ("fp32", "fp16", "int8"))
    assert (full.pq, full.miou) == (0, 0)
    assert full.error < 1e-5
    assert 0 < half.error < 0.01
    assert half.error < quarter.error
    assert half.pq < 1
    assert 0 < quarter.pq < 20


def test_a_block_alone_loses_less_than_all(laboratory: Laboratory) -> None:
    whole = laboratory.loss("int8", {})
    alone = laboratory.loss("fp32", {"encoder layer 2": "int8"})
    assert 0 < alone.error < whole.error
    assert laboratory.loss("fp32", {"decoder layer 0": "fp32"}).error < 1e-5


def test_exclusions_have_ranges_too() -> None:
    """Where one of two convolutions that are added stays FP16, the other is fused with the addition."""
    excluded = ("/backbone/res3/res3.0/conv3/Conv",)
    images = street.images(1_000_000, 1)
    laboratory = Laboratory(street.fp32_graph(), images, judge_of(street.manifest()), excluded)
    assert 0 < laboratory.loss("fp32", {"backbone res3": "int8"}).error < 0.2


def test_a_survey_is_of_all_blocks(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Laboratory, "loss", lambda self, precision, blocks: Loss(1.0, 1.0, 1.0))
    said: list[tuple[int, int]] = []
    survey = laboratory.survey(("fp16", "int8"), lambda what, done, of: said.append((done, of)))
    assert said[-1] == (len(survey), len(survey))
    assert len(said) == len(survey) == 2 * len(laboratory.cheapest) - 4 == 2 * 19 - 4
    gmac = sum(entry.gmac for entry in survey if entry.precision == "fp16")
    assert gmac == pytest.approx(sum(count_macs(street.fp32_graph()).values()) / 1e9)


class Additive:
    """A network whose losses add up, as a stand-in for a laboratory."""

    blocks = ("a", "b", "c")
    cheapest = dict.fromkeys(blocks, "int8")
    int8 = {"a": 3.0, "b": 1.0, "c": 0.25}  # noqa: RUF012
    gmac = {"a": 1.0, "b": 1.0, "c": 1.0}  # noqa: RUF012

    def loss(self, precision: Precision, blocks: Mapping[str, Precision]) -> Loss:
        levels = [blocks.get(block, precision) for block in self.blocks]
        points = sum(
            {"int8": self.int8[block], "fp16": 0.1, "fp32": 0.0}[level]
            for block, level in zip(self.blocks, levels, strict=True)
        )
        return Loss(points, points, points)

    def survey(self, precisions: Sequence[Precision], progress: Any) -> list[BlockLoss]:
        return [
            BlockLoss(block, precision, self.gmac[block], self.loss("fp32", {block: precision}))
            for precision in precisions
            for block in self.blocks
            if precision != "int8" or self.cheapest[block] == "int8"
        ]


@pytest.mark.parametrize("tolerance", [0.0, 0.15, 0.3, 0.5, 1.3, 2.0, 4.24, 4.25, 100.0])
def test_the_fewest_steps_within_the_tolerance(tolerance: float) -> None:
    network = Additive()
    blocks, loss = choose(cast(Laboratory, network), tolerance)
    assert loss.pq <= tolerance + 1e-9
    assert loss == network.loss("int8", blocks)

    def height(mix: Mapping[str, Precision]) -> int:
        return sum(("int8", "fp16", "fp32").index(level) for level in mix.values())

    every = [dict(zip("abc", levels, strict=True)) for levels in itertools.product(("int8", "fp16", "fp32"), repeat=3)]
    possible = [mix for mix in every if network.loss("int8", mix).pq <= tolerance]
    assert height(blocks) == min(map(height, possible))


def test_blocks_without_int8_begin_in_fp16(laboratory: Laboratory) -> None:
    lowest = {block: precision for block, precision in laboratory.cheapest.items() if precision != "int8"}
    assert lowest == dict.fromkeys(("backbone stem", "recalibration", "mask head", "class head"), "fp16")

    class Half(Additive):
        cheapest = Additive.cheapest | {"a": "fp16"}

    for tolerance in (2.0, 1.0, 0.3, 0.1):
        blocks, loss = choose(cast(Laboratory, Half()), tolerance)
        assert blocks["a"] != "int8"
        assert loss.pq <= tolerance


def test_a_model_that_finds_nothing() -> None:
    """An untrained one: no loss could be seen."""
    nothing = judge_of(street.manifest())
    with pytest.raises(PrecisionError, match="streets: the model finds no segment in 4 pictures"):
        Laboratory(
            street.fp32_graph(), street.images(1_000_000, 4), lambda a, b: replace(nothing(a, b), pq=float("nan"))
        )


def test_agreement() -> None:
    """Every pixel of one class; the other output calls half of them another one."""
    manifest = street.manifest()
    shape = manifest.queries, street.SIZE[0] // 4, street.SIZE[1] // 4
    logits = np.full((shape[0], len(manifest.classes) + 1), -9, np.float32)
    logits[:, -1] = 9
    masks = np.full(shape, -9, np.float32)
    sky, road = (next(i for i, info in enumerate(manifest.classes) if info.name == name) for name in ("sky", "road"))
    logits[0, [sky, -1]] = 9, -9
    masks[0] = 9
    one = RawOutput(logits.copy(), masks.copy())
    logits[1, [road, -1]] = 9, -9
    half = shape[1] // 2
    masks[0, :half], masks[1, :half] = -9, 9
    other = RawOutput(logits, masks)
    judge = judge_of(manifest)
    assert judge([one], [one]) == Agreement(100.0, 100.0)
    # Half of the sky is found, which is no match, and a road is made up.
    found = judge([one], [other])
    assert found.pq < 30
    assert found.miou == pytest.approx(50, abs=1)  # of the classes that are there


def test_plot(tmp_path: Any) -> None:
    losses = Additive().survey(("fp16", "int8"), None)
    write_plot(losses, tmp_path / "plot.png")
    pixels = np.asarray(Image.open(tmp_path / "plot.png").convert("RGB")).astype(int)
    orange = (np.abs(pixels - (220, 120, 60)).sum(-1) == 0).sum(axis=1)
    lengths = sorted({int(count) for count in orange if count > 40}, reverse=True)
    assert lengths[0] == pytest.approx(3 * lengths[1], rel=0.05)  # 3 points and 1
