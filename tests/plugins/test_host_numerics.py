"""The host kernel against the definition in float64, and that definition against PyTorch's grid_sample."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.operator import Attributes
from support.deform_attn import deform_attn_exact
from support.deform_attn_cases import LEVELS, Case, cases, decode, encode

CASES = {f"{dtype.name} {case.name}": case for dtype in DType for case in cases(dtype)}


@pytest.fixture(scope="module")
def library(host_library: Path) -> Library:
    return Library(host_library)


def run(library: Library, case: Case) -> NDArray:
    return library.host(case.attributes, case.value, case.sampling)


def grid_sample_form(value: NDArray, sampling: NDArray, attributes: Attributes) -> NDArray:
    """As the official code computes it, in float64; offsets and logits must be finite."""
    heads, points, levels = attributes.heads, attributes.points, attributes.levels
    batch, tokens, channels = value.shape
    offsets, logits = torch.tensor(sampling, dtype=torch.float64).split(
        [2 * attributes.samples, attributes.samples], -1
    )
    offsets = offsets.view(batch, tokens, heads, len(levels), points, 2)
    weights = logits.view(batch, tokens, heads, -1).softmax(-1).view(batch, tokens, heads, len(levels), points)
    reference = [((x + 0.5) / w, (y + 0.5) / h) for h, w in levels for y in range(h) for x in range(w)]
    output = torch.zeros(batch * heads, channels // heads, tokens, dtype=torch.float64)
    maps = torch.tensor(value, dtype=torch.float64).split([h * w for h, w in levels], 1)
    for k, (height, width) in enumerate(levels):
        plane = maps[k].view(batch, height, width, heads, -1).permute(0, 3, 4, 1, 2).flatten(0, 1)
        location = torch.tensor(reference, dtype=torch.float64)[:, None, None] + offsets[:, :, :, k] / torch.tensor(
            [width, height]
        )
        grid = (2 * location - 1).transpose(1, 2).flatten(0, 1)
        sampled = torch.nn.functional.grid_sample(plane, grid, align_corners=False)
        output += (sampled * weights[:, :, :, k].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
    return output.view(batch, channels, tokens).transpose(1, 2).numpy()


def is_moderate(case: Case) -> bool:
    """Whether PyTorch defines the result too: it makes integers of positions."""
    offsets, logits = np.split(decode(case.sampling).astype(np.float64), [2 * case.attributes.samples], -1)
    return bool((abs(offsets) < 1e6).all() and np.isfinite(logits).all())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if is_moderate(case)])
def test_the_definition_is_what_grid_sample_computes(name: str) -> None:
    case = CASES[name]
    value, sampling = decode(case.value), decode(case.sampling)
    exact = deform_attn_exact(value, sampling, case.attributes)
    tolerance = 1e-14 * (exact.magnitude + exact.shift) + 1e-14
    assert (abs(grid_sample_form(value, sampling, case.attributes) - exact.output) <= tolerance).all()


@pytest.mark.parametrize("name", CASES)
def test_as_exact_as_single_precision_allows(library: Library, name: str) -> None:
    CASES[name].check(run(library, CASES[name]))


@pytest.mark.parametrize("name", [name for name in CASES if "logits" in name])
def test_undefined_where_the_softmax_of_pytorch_is(library: Library, name: str) -> None:
    case = CASES[name]
    attributes = case.attributes
    logits = torch.tensor(decode(case.sampling)[..., 2 * attributes.samples :], dtype=torch.float32)
    weights = logits.unflatten(-1, (attributes.heads, -1)).softmax(-1)
    found = decode(run(library, case)).reshape(*weights.shape[:3], -1)
    assert (np.isnan(found) == weights.isnan().any(-1, keepdim=True).numpy()).all()


@pytest.mark.parametrize("name", [name for name in CASES if "offset" in name])
def test_a_sample_at_no_place_is_one_far_away(library: Library, name: str) -> None:
    case = CASES[name]
    sampling = decode(case.sampling).copy()
    sampling[~(abs(sampling) < 1e3)] = -100
    assert (decode(case.sampling) == -100).sum() < (sampling == -100).sum()
    moved = library.host(case.attributes, case.value, encode(sampling, case.dtype))
    np.testing.assert_array_equal(run(library, case), moved)


@pytest.mark.parametrize("dtype", DType)
@pytest.mark.parametrize("size", [(4, 6), (2, 2), (1, 5), (5, 1), (1, 1)], ids=str)
def test_a_sample_on_a_pixel_is_that_pixel_and_one_off_the_map_is_nothing(
    library: Library, dtype: DType, size: tuple[int, int]
) -> None:
    height, width = size
    attributes = Attributes(2, 1, (size,))
    value = encode(np.random.default_rng(0).standard_normal((1, height * width, 2 * 16)), dtype)
    for y in (-2, -1, *range(height), height, height + 1):
        for x in (-2, -1, *range(width), width, width + 1):
            # Every token of the map looks at (x, y).
            places = np.array([(x - column, y - row) for row in range(height) for column in range(width)])
            sampling = np.concatenate([places, places, np.zeros_like(places)], -1)[None]
            output = library.host(attributes, value, encode(sampling, dtype))
            inside = 0 <= x < width and 0 <= y < height
            expected = value[:, y * width + x] if inside else np.zeros_like(value[:, 0])
            np.testing.assert_array_equal(output, np.broadcast_to(expected[:, None], output.shape))


@pytest.mark.parametrize("dtype", DType)
def test_images_of_a_batch_do_not_touch_each_other(library: Library, dtype: DType) -> None:
    case = CASES[f"{dtype.name} three"]
    together = run(library, case)
    for image in range(len(together)):
        alone = library.host(case.attributes, case.value[image : image + 1], case.sampling[image : image + 1])
        np.testing.assert_array_equal(together[image], alone[0])


@pytest.mark.parametrize("dtype", DType)
def test_writes_all_of_its_output_and_nothing_else(library: Library, dtype: DType) -> None:
    """From arrays that are aligned to their elements and to nothing more."""
    case = CASES[f"{dtype.name} head_dim 100"]
    value, sampling = (_off_by_one(array) for array in (case.value, case.sampling))
    around = np.full(case.value.size + 2 * 64 + 1, encode(np.array(np.nan), dtype))
    output = around[65:-64].reshape(case.value.shape)
    assert library.host(case.attributes, value, sampling, output) is output
    np.testing.assert_array_equal(output, run(library, case))
    assert np.isnan(decode(around[:65])).all()
    assert np.isnan(decode(around[-64:])).all()


def _off_by_one(array: NDArray) -> NDArray:
    moved = np.empty(array.size + 1, array.dtype)[1:].reshape(array.shape)
    moved[:] = array
    return moved


def test_the_same_bits_with_any_number_of_threads(host_library: Path) -> None:
    code = (
        "import hashlib, sys; from pathlib import Path\n"
        "from proscale_deploy.core.native import DType, Library\n"
        "from support.deform_attn_cases import cases\n"
        "case = next(case for case in cases(DType.FLOAT) if case.name == 'as deployed')\n"
        "library = Library(Path(sys.argv[1]))\n"
        "for _ in range(3): print(hashlib.sha256(library.host(case.attributes, case.value, case.sampling)).hexdigest())"
    )
    hashes = set()
    for threads in ("1", "2", "5"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", code, str(host_library)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        hashes |= set(done.stdout.split())
    assert len(hashes) == 1


@pytest.mark.parametrize("dtype", DType)
def test_a_layer_of_full_size(library: Library, dtype: DType) -> None:
    """Three levels at 800x1344; compared at some of the 22,050 tokens."""
    attributes = Attributes(8, 4, ((25, 42), (50, 84), (100, 168)))
    generator = np.random.default_rng(0)
    value = encode(generator.standard_normal((1, attributes.tokens, 256), np.float32), dtype)
    sampling = encode(3 * generator.standard_normal((1, attributes.tokens, 3 * attributes.samples), np.float32), dtype)
    tokens = sorted({0, 1049, 1050, 5249, 5250, 22049, *generator.integers(0, attributes.tokens, 100).tolist()})
    case = Case("800x1344", dtype, attributes, value, sampling)
    case.check(run(library, case)[:, tokens], tokens)


def test_positions_are_not_rounded_to_the_type_of_the_tensors(library: Library) -> None:
    """A map 1000 pixels wide, where half can tell half a pixel apart: the error stays that of the output's rounding."""
    case = CASES["HALF wide"]
    assert case.attributes.levels == LEVELS["wide"]
    exact = deform_attn_exact(case.value, case.sampling, case.attributes)
    assert abs(run(library, case) - exact.output).max() < 2e-3
