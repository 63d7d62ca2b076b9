"""The kernels of post-processing on the device, against the host library's form of them."""

import numpy as np
import pytest
import torch
from numpy.typing import DTypeLike, NDArray

from proscale_deploy.core import plugin_library
from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.types import Placement
from proscale_deploy.runtime.compiled.mask_kernels import (
    MOST_CLASSES,
    MOST_QUERIES,
    STATS,
    DeviceMasks,
    HostMasks,
    bitmap_words,
)
from proscale_deploy.runtime.taps import MaskPlan, mask_plan
from support.device_runs import GUARD
from support.scenes import typical_scene

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float16])
PLACEMENTS = {
    "full HD": Placement((1080, 1920), (750, 1333), (800, 1344)),
    "odd": Placement((1079, 1913), (751, 1332), (768, 1344)),
    "shrunk much": Placement((23, 31), (800, 1078), (800, 1088)),
    "Cityscapes": Placement((1024, 2048), (1024, 2048), (1024, 2048)),
    "a row": Placement((1, 3000), (1, 1500), (32, 1504)),
    "a column": Placement((3330, 2), (1280, 1), (1280, 32)),
    "8K": Placement((8192, 8191), (800, 800), (800, 800)),
}


class Array:
    """A dense array on the device, with a guard on both sides; full of ones where nothing is given."""

    def __init__(self, device: torch.device, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._size = int(np.prod(shape)) * self._dtype.itemsize
        self._memory = torch.full((self._size + 2 * GUARD,), 255, dtype=torch.uint8, device=device)
        self.address = self._memory.data_ptr() + GUARD

    @classmethod
    def of(cls, array: NDArray[np.generic], device: torch.device) -> "Array":
        made = cls(device, array.shape, array.dtype)
        made.fill(array)
        return made

    def fill(self, array: NDArray[np.generic]) -> None:
        given = np.frombuffer(array.tobytes(), np.uint8).copy()
        self._memory[GUARD : GUARD + self._size].copy_(torch.from_numpy(given))

    def host(self) -> NDArray:
        memory = self._memory.cpu().numpy()
        assert (memory[:GUARD] == 255).all()
        assert (memory[GUARD + self._size :] == 255).all()
        return memory[GUARD : GUARD + self._size].view(self._dtype).reshape(self._shape)


class Work:
    """All kernels for one image, with what they read and write."""

    def __init__(
        self, library: Library, plan: MaskPlan, masks: NDArray, device: torch.device, kept: int = 25, classes: int = 20
    ) -> None:
        rng = np.random.default_rng(0)
        self.queries = np.sort(rng.choice(len(masks), kept, replace=False))
        self.scores = rng.uniform(0.5, 1, len(self.queries)).astype(np.float32)
        self.weights = rng.dirichlet(np.full(classes, 0.1), len(masks)).T.astype(np.float32)
        self.ids = rng.integers(0, 99, (len(self.queries), 2), np.int32)
        (height, width), count = plan.output_hw, len(self.queries)
        self.plan, self.logits = plan, Array.of(masks, device)
        self._inputs = {
            "tables": Array.of(plan.tables, device),
            "queries": Array.of(self.queries.astype(np.int32), device),
            "scores": Array.of(self.scores, device),
            "weights": Array.of(self.weights, device),
            "ids": Array.of(self.ids, device),
        }
        self._outputs = {
            "nonfinite": Array(device, (1,), np.uint32),
            "codes": Array(device, (height, width), np.int16),
            "counts": Array(device, (count, 3), np.uint32),
            "map": Array(device, (height, width), np.int32),
            "labels": Array(device, (height, width), np.int32),
            "sums": Array(device, (height, width), np.float32),
            "bitmaps": Array(device, (count, height, bitmap_words(width)), np.uint32),
            "stats": Array(device, (count,), STATS),
        }
        dtype = DType.HALF if masks.dtype == np.float16 else DType.FLOAT
        tables = self._inputs["tables"].address
        self._masks = DeviceMasks(library, plan, dtype, len(masks), logits=self.logits.address, tables=tables)

    def queue(self, stream: int) -> None:
        given = {name: array.address for name, array in self._inputs.items()}
        out = {name: array.address for name, array in self._outputs.items()}
        masks, count = self._masks, len(self.queries)
        masks.count_nonfinite(out["nonfinite"], stream)
        masks.semantic(
            len(self.weights), weights=given["weights"], labels=out["labels"], scores=out["sums"], stream=stream
        )
        if self.plan.samples == 2:
            return
        masks.panoptic(
            count,
            queries=given["queries"],
            scores=given["scores"],
            codes=out["codes"],
            counts=out["counts"],
            stream=stream,
        )
        masks.relabel(2 * count, codes=out["codes"], ids=given["ids"], labels=out["map"], stream=stream)
        masks.instances(count, queries=given["queries"], bitmaps=out["bitmaps"], stats=out["stats"], stream=stream)

    def results(self) -> dict[str, NDArray]:
        return {name: array.host() for name, array in self._outputs.items()}

    def check(self, host: Library, masks: NDArray) -> None:
        """Against the host library: pixels may differ where two values, or a logit and zero, do by rounding."""
        found, expected = self.results(), HostMasks(host, self.plan, masks)
        allowed = 2 + 1e-5 * found["labels"].size
        assert found["nonfinite"].tolist() == [0]
        labels, sums = expected.semantic(self.weights)
        assert np.count_nonzero(found["labels"] != labels) <= allowed
        np.testing.assert_allclose(found["sums"], sums, rtol=0, atol=6e-5)
        if self.plan.samples == 2:
            return
        codes, counts = expected.panoptic(self.queries, self.scores)
        assert np.count_nonzero(found["codes"] != codes) <= allowed
        won = np.bincount(found["codes"].ravel(), minlength=2 * len(counts)).reshape(-1, 2)
        np.testing.assert_array_equal(found["counts"][:, :2], won)
        np.testing.assert_allclose(found["counts"][:, 2].astype(int), counts[:, 2].astype(int), rtol=0, atol=allowed)
        np.testing.assert_array_equal(found["map"], self.ids.ravel()[found["codes"]])

        bitmaps, stats = expected.instances(self.queries)
        differing = np.unpackbits((found["bitmaps"] ^ bitmaps).view(np.uint8))
        assert np.count_nonzero(differing) <= allowed * len(stats)
        bits = np.unpackbits(found["bitmaps"].view(np.uint8), axis=2)
        np.testing.assert_array_equal(found["stats"]["count"], bits.sum(axis=(1, 2), dtype=np.int64))
        mean = found["stats"]["probability"] / 2**24 / np.maximum(found["stats"]["count"], 1)
        np.testing.assert_allclose(
            mean, stats["probability"] / 2**24 / np.maximum(stats["count"], 1), rtol=0, atol=1e-5
        )
        for edge in ("right", "bottom", "from_right", "from_bottom"):
            np.testing.assert_allclose(found["stats"][edge].astype(int), stats[edge].astype(int), rtol=0, atol=2)


@pytest.fixture(scope="module")
def host() -> Library:
    path = plugin_library.find_host()
    if path is None:
        pytest.skip("needs libproscale_host.so: proscale-deploy plugin build")
    return Library(path)


def scene(placement: Placement, dtype: DTypeLike, queries: int = 100, seed: int = 0) -> NDArray:
    mask_hw = placement.padded_hw[0] // 4, placement.padded_hw[1] // 4
    return typical_scene(mask_hw, queries, classes=2, found=20, seed=seed).mask_logits.astype(dtype)


def current_stream() -> int:
    return torch.cuda.current_stream().cuda_stream if torch.cuda.is_available() else 0


@DTYPES
@pytest.mark.parametrize("placement", PLACEMENTS.values(), ids=PLACEMENTS)
@pytest.mark.parametrize("masks_first", [True, False])
def test_results(
    library: Library, host: Library, device: torch.device, placement: Placement, dtype: DTypeLike, masks_first: bool
) -> None:
    masks = scene(placement, dtype, queries=30 if placement is PLACEMENTS["8K"] else 100)
    work = Work(library, mask_plan(masks.shape[1:], placement, masks_first), masks, device)
    work.queue(current_stream())
    work.check(host, masks)


@DTYPES
@pytest.mark.parametrize("masks_first", [True, False])
def test_noise(library: Library, host: Library, device: torch.device, dtype: DTypeLike, masks_first: bool) -> None:
    """Every tile is contested, and every class may win it."""
    placement = PLACEMENTS["odd"]
    masks = np.random.default_rng(0).normal(0, 4, (40, 192, 336)).astype(dtype)
    work = Work(library, mask_plan((192, 336), placement, masks_first), masks, device)
    work.queue(current_stream())
    work.check(host, masks)


def test_as_many_as_it_takes(library: Library, host: Library, device: torch.device) -> None:
    """Blocks ask for nearly all the shared memory that they may have."""
    masks = np.random.default_rng(0).normal(0, 3, (MOST_QUERIES, 8, 8)).astype(np.float32)
    plan = mask_plan((8, 8), Placement((9, 10), (32, 32), (32, 32)))
    work = Work(library, plan, masks, device, MOST_QUERIES, MOST_CLASSES)
    work.queue(current_stream())
    work.check(host, masks)


def test_the_same_bits_every_time(library: Library, device: torch.device) -> None:
    placement = PLACEMENTS["full HD"]
    masks = scene(placement, np.float16)
    work = Work(library, mask_plan((200, 336), placement), masks, device)
    work.queue(current_stream())
    first = work.results()
    for _ in range(5):
        work.queue(current_stream())
        for name, array in work.results().items():
            assert array.tobytes() == first[name].tobytes(), name


def test_a_graph(library: Library, host: Library, device: torch.device) -> None:
    """Captured once, replayed for other logits: counts begin anew."""
    placement = PLACEMENTS["full HD"]
    plan, masks = mask_plan((200, 336), placement), scene(placement, np.float16)
    work = Work(library, plan, masks, device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work.queue(current_stream())
    for seed in range(3):
        masks = scene(placement, np.float16, seed=seed)
        work.logits.fill(masks)
        graph.replay()
        torch.cuda.synchronize()
        work.check(host, masks)


def test_what_is_not_finite(library: Library, device: torch.device) -> None:
    placement = PLACEMENTS["full HD"]
    for dtype in (np.float32, np.float16):
        masks = scene(placement, dtype)
        masks.flat[[0, 77, 1001, masks.size - 1]] = np.nan, np.inf, -np.inf, np.nan
        work = Work(library, mask_plan((200, 336), placement), masks, device)
        work.queue(current_stream())  # whatever comes out, no kernel fails
        assert work.results()["nonfinite"].tolist() == [4]
