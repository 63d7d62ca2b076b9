"""The CUDA kernels over the protocol of tests/support, and what a launcher promises beside its numbers."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from plugins.bench import cases as bench
from plugins.bench.forms import exact as exact_on_device
from proscale_deploy.core import plugin_library
from proscale_deploy.core.errors import PluginError
from proscale_deploy.core.native import DType, Kernel, Library
from proscale_deploy.core.operator import Attributes
from support.deform_attn_cases import Case, cases, decode
from support.device_runs import TORCH_TYPES, Tensors, launch, run, to_device, to_host
from support.tiled_kernel import HALVES, is_tileable, widened

EVERY_KERNEL = pytest.mark.parametrize("kernel", Kernel, ids=lambda kernel: kernel.name)
EVERY_TYPE = pytest.mark.parametrize("dtype", DType, ids=lambda dtype: dtype.name)
NAMES = {DType.FLOAT: "fp32", DType.HALF: "fp16", DType.BFLOAT16: "bf16"}


def on_device(case: Case, device: torch.device, *, off_by: int = 0) -> Tensors:
    value, sampling = (to_device(array, case.dtype, device, off_by=off_by) for array in (case.value, case.sampling))
    return Tensors(case.attributes, value, sampling)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """NaN included."""
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def check(case: Case, output: torch.Tensor, kernel: Kernel) -> None:
    case.check(to_host(output), halves=0 if kernel == Kernel.PLAIN else HALVES[case.dtype])


def wrong(library: Library, device: torch.device, these: list[Case], kernel: Kernel) -> dict[str, str]:
    found = {}
    for case in these:
        try:
            check(case, run(library, on_device(case, device), kernel), kernel)
        except AssertionError as error:
            found[case.name] = str(error)
    return found


@pytest.mark.parametrize("kernel", [Kernel.AUTO, Kernel.PLAIN], ids=lambda kernel: kernel.name)
@EVERY_TYPE
def test_numbers(library: Library, device: torch.device, dtype: DType, kernel: Kernel) -> None:
    assert wrong(library, device, list(cases(dtype)), kernel) == {}


@EVERY_TYPE
def test_numbers_of_the_tiled_kernel(library: Library, device: torch.device, dtype: DType) -> None:
    these = [wide for case in cases(dtype) if is_tileable(wide := widened(case))]
    assert len(these) > 25
    assert wrong(library, device, these, Kernel.TILED) == {}


@EVERY_TYPE
def test_the_tiled_kernel_refuses_what_does_not_fit(library: Library, device: torch.device, dtype: DType) -> None:
    these = [case for case in cases(dtype) if not is_tileable(case)]
    assert len(these) > 5
    for case in these:
        with pytest.raises(PluginError, match="CUDA error 1 "):
            run(library, on_device(case, device), Kernel.TILED)


@EVERY_TYPE
def test_tensors_aligned_to_an_element_only(library: Library, device: torch.device, dtype: DType) -> None:
    for case in cases(dtype):
        check(case, run(library, on_device(case, device, off_by=1)), Kernel.AUTO)


def full_size(dtype: DType, device: torch.device, batch: int = 1, seed: int = 0) -> tuple[bench.Case, Tensors]:
    """Three levels at 800x1344, 5 % of the offsets wide."""
    offsets = bench.Offsets(2.0, tail=0.05)
    case = dataclasses.replace(bench.HEADLINE, batch=batch, dtype=NAMES[dtype], offsets=offsets)
    inputs = bench.make_inputs(case, seed, device)
    return case, Tensors(case.attributes, inputs.value, inputs.sampling)


@EVERY_KERNEL
@EVERY_TYPE
def test_full_size_against_torch(library: Library, device: torch.device, dtype: DType, kernel: Kernel) -> None:
    """Every token of a layer, against grid_sample in FP64."""
    case, tensors = full_size(dtype, device)
    truth = exact_on_device(case, bench.Inputs(tensors.value, tensors.sampling))
    magnitude = exact_on_device(case, bench.Inputs(tensors.value.abs(), tensors.sampling))
    error = (run(library, tensors, kernel).double() - truth).abs()
    # The positions' share: 8 roundings of numbers up to 168, pixels that differ by at most twice the largest.
    bound = 1e-5 * magnitude + 8 * 2.0**-24 * 2 * 168 * 2 * tensors.value.abs().max()
    rms = {DType.FLOAT: 3e-6, DType.HALF: 3e-4, DType.BFLOAT16: 2e-3}[dtype]
    if dtype == DType.HALF:
        bound += (1 + HALVES[dtype]) * 2.0**-11 * magnitude + 2.0**-24
    if dtype == DType.BFLOAT16:
        bound += 2.0**-8 * truth.abs() + HALVES[dtype] * 2.0**-11 * magnitude
    assert bool((error <= bound).all()), f"{(error - bound).max().item():.2e} beyond the bound"
    assert error.square().mean().sqrt().item() <= rms


@EVERY_TYPE
def test_full_size_against_the_host(library: Library, device: torch.device, dtype: DType) -> None:
    """The same math on the CPU: FP32 inside on both sides, so the plain kernel differs by roundings only."""
    path = plugin_library.find_host()
    if path is None:
        pytest.skip(f"needs {plugin_library.HOST}: proscale-deploy plugin build")
    _, tensors = full_size(dtype, device)
    found = to_host(run(library, tensors, Kernel.PLAIN))
    host = Library(path).host(tensors.attributes, to_host(tensors.value), to_host(tensors.sampling))
    step = {DType.FLOAT: 0.0, DType.HALF: 2.0**-10, DType.BFLOAT16: 2.0**-7}[dtype]
    np.testing.assert_allclose(decode(found), decode(host), rtol=step, atol=1e-3 if step else 2e-4)


@EVERY_KERNEL
@EVERY_TYPE
def test_an_image_does_not_depend_on_its_batch(
    library: Library, device: torch.device, dtype: DType, kernel: Kernel
) -> None:
    _, tensors = full_size(dtype, device, batch=3)
    together = run(library, tensors, kernel)
    for image in range(3):
        alone = Tensors(tensors.attributes, tensors.value[image, None], tensors.sampling[image, None])
        assert same_bits(run(library, alone, kernel)[0], together[image])


@EVERY_KERNEL
@EVERY_TYPE
def test_the_same_bits_every_time(library: Library, device: torch.device, dtype: DType, kernel: Kernel) -> None:
    _, tensors = full_size(dtype, device)
    first = run(library, tensors, kernel)
    assert all(same_bits(run(library, tensors, kernel), first) for _ in range(20))


@EVERY_KERNEL
@EVERY_TYPE
def test_a_graph_replays_with_other_inputs(
    library: Library, device: torch.device, dtype: DType, kernel: Kernel
) -> None:
    """In the capture anything that allocates or waits would be refused."""
    _, tensors = full_size(dtype, device, batch=2)
    output = torch.empty_like(tensors.value)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch(library, tensors, output, kernel, torch.cuda.current_stream().cuda_stream)
    for seed in (1, 2):
        _, other = full_size(dtype, device, batch=2, seed=seed)
        tensors.value.copy_(other.value)
        tensors.sampling.copy_(other.sampling)
        output.fill_(torch.nan)
        graph.replay()
        assert same_bits(output, run(library, other, kernel))


@EVERY_KERNEL
def test_the_first_launch_of_a_process_may_be_captured(library: Library, device: torch.device, kernel: Kernel) -> None:
    """CUDA loads a kernel when it is first launched: here inside a capture that forbids much."""
    code = (
        "import sys; from pathlib import Path; import torch\n"
        "from proscale_deploy.core.native import DType, Kernel, Library\n"
        "from proscale_deploy.core.operator import Attributes\n"
        "from support.device_runs import Tensors, launch\n"
        "value, sampling = (torch.ones(1, 35, width, device='cuda') for width in (256, 96))\n"
        "output, graph = torch.zeros_like(value), torch.cuda.CUDAGraph()\n"
        "library = Library(Path(sys.argv[1]))\n"
        "with torch.cuda.graph(graph, capture_error_mode='global'):\n"
        "    stream = torch.cuda.current_stream().cuda_stream\n"
        "    tensors = Tensors(Attributes(8, 4, ((5, 7),)), value, sampling)\n"
        "    launch(library, tensors, output, Kernel(int(sys.argv[2])), stream)\n"
        "graph.replay()\n"
        "assert 0 < output.max().item() <= 1.001"
    )
    command = [sys.executable, "-c", code, str(library.path), str(int(kernel))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_MODULE_LOADING": "LAZY"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@EVERY_KERNEL
def test_streams_do_not_touch_each_other(library: Library, device: torch.device, kernel: Kernel) -> None:
    work = [full_size(dtype, device, seed=seed)[1] for seed, dtype in enumerate([*DType, DType.HALF])]
    expected = [run(library, tensors, kernel) for tensors in work]
    outputs = [[torch.full_like(tensors.value, torch.nan) for _ in range(8)] for tensors in work]
    streams = [torch.cuda.Stream() for _ in work]
    torch.cuda.synchronize()
    for turn in range(8):
        for tensors, mine, stream in zip(work, outputs, streams, strict=True):
            launch(library, tensors, mine[turn], kernel, stream.cuda_stream)
    torch.cuda.synchronize()
    for mine, one in zip(outputs, expected, strict=True):
        assert all(same_bits(output, one) for output in mine)


@EVERY_KERNEL
def test_more_than_two_thousand_million_elements(library: Library, device: torch.device, kernel: Kernel) -> None:
    """Where an index of 32 bits would wrap around: the last image is as if it were alone."""
    _, one = full_size(DType.HALF, device)
    batch = 2**31 // one.value.numel() + 2
    needed = batch * (2 * one.value.nbytes + one.sampling.nbytes) + (1 << 30)
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 1e9:.0f} GB of free device memory")
    value, sampling = (tensor.new_zeros(batch, *tensor.shape[1:]) for tensor in (one.value, one.sampling))
    value[-1], sampling[-1] = one.value[0], one.sampling[0]
    output = torch.full_like(value, torch.nan)
    launch(library, Tensors(one.attributes, value, sampling), output, kernel, torch.cuda.current_stream().cuda_stream)
    assert same_bits(output[-1], run(library, one, kernel)[0])
    assert bool((output[0] == 0).all())


@EVERY_TYPE
def test_a_launch_that_is_refused_leaves_no_error_behind(library: Library, device: torch.device, dtype: DType) -> None:
    attributes = Attributes(1, 1, ((1, 4),))
    tensors = Tensors(
        attributes,
        torch.zeros(1, 4, 32, dtype=TORCH_TYPES[dtype], device=device),
        torch.zeros(1, 4, 3, dtype=TORCH_TYPES[dtype], device=device),
    )
    with pytest.raises(PluginError, match="CUDA error 1 "):
        run(library, tensors, Kernel.TILED)
    torch.cuda.synchronize()
    assert bool((run(library, tensors, Kernel.AUTO) == 0).all())
