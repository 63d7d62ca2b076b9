"""The preprocessing on the device: to the last bit what Pillow and numpy make of the same frames."""

import dataclasses

import numpy as np
import pytest
import torch

from proscale_deploy.core.native import DType, Library
from proscale_deploy.runtime.compiled.frame_kernels import ResizePlan, preprocess_device, resize_plan
from proscale_deploy.runtime.preprocess import place, preprocess
from support.device_runs import GUARD, TORCH_TYPES
from support.frame_cases import SPEC, Case, cases, random_frame

BOTH_TYPES = pytest.mark.parametrize("dtype", [DType.FLOAT, DType.HALF], ids=lambda dtype: dtype.name)
COCO = dataclasses.replace(SPEC, height=800, width=1344, shortest_edge=800, longest_edge=1333)


class Run:
    """A frame, its tables and a tensor on the device. The tensor is full of NaN, with a guard on both sides."""

    def __init__(self, case: Case, dtype: DType, device: torch.device) -> None:
        self.case, self.dtype = case, dtype
        self.plan: ResizePlan = resize_plan(place(case.frame.shape[:2], case.spec))
        pitch, (height, width, _) = case.frame.strides[0], case.frame.shape
        self.frame = torch.zeros((height - 1) * pitch + 3 * width, dtype=torch.uint8, device=device)
        rows = self.frame.as_strided((height, 3 * width), (pitch, 1))
        rows.copy_(torch.from_numpy(np.ascontiguousarray(case.frame).reshape(height, -1)))
        self.tables = torch.from_numpy(self.plan.tables).to(device)
        shape = 3, case.spec.height, case.spec.width
        size = int(np.prod(shape)) * TORCH_TYPES[dtype].itemsize
        self.memory = torch.full((size + 2 * GUARD,), 255, dtype=torch.uint8, device=device)
        self.output = self.memory[GUARD : GUARD + size].view(TORCH_TYPES[dtype]).view(shape)

    def launch(self, library: Library, stream: int) -> None:
        preprocess_device(
            library,
            self.plan,
            self.case.spec,
            self.dtype,
            frame=self.frame.data_ptr(),
            pitch=self.case.frame.strides[0],
            tables=self.tables.data_ptr(),
            output=self.output.data_ptr(),
            stream=stream,
        )

    def check(self) -> None:
        found = self.output.cpu().numpy()
        np.testing.assert_array_equal(found, self.case.expected(found.dtype)[0])
        assert bool((self.memory[:GUARD] == 255).all())
        assert bool((self.memory[-GUARD:] == 255).all())


def current_stream() -> int:
    return torch.cuda.current_stream().cuda_stream if torch.cuda.is_available() else 0


@BOTH_TYPES
def test_numbers(library: Library, device: torch.device, dtype: DType) -> None:
    for case in cases():
        run = Run(case, dtype, device)
        run.launch(library, current_stream())
        run.check()


@BOTH_TYPES
@pytest.mark.parametrize("size", [(1080, 1920), (480, 640), (2160, 3840), (1079, 1913), (16384, 60), (60, 16384)])
def test_full_size(library: Library, device: torch.device, size: tuple[int, int], dtype: DType) -> None:
    run = Run(Case("", random_frame(*size), COCO), dtype, device)
    run.launch(library, current_stream())
    run.check()


def test_the_largest_frame_and_tensor(library: Library, device: torch.device) -> None:
    """Addresses beyond 2^31, of bytes and of elements."""
    frame = np.zeros((16384, 16384, 3), np.uint8)
    frame[-40:, -40:] = random_frame(40, 40)
    case = Case("", frame, dataclasses.replace(SPEC, height=27000, width=27000, shortest_edge=0))
    needed = frame.nbytes + 2 * 3 * 27000 * 27000 + 2**30
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f"needs {needed / 1e9:.0f} GB of GPU memory")
    run = Run(case, DType.HALF, device)
    run.launch(library, current_stream())
    corner = run.output[:, 16384 - 40 : 16384 + 8, 16384 - 40 : 16384 + 8].cpu().numpy()
    small = dataclasses.replace(SPEC, height=48, width=48, shortest_edge=0)
    np.testing.assert_array_equal(corner, preprocess(random_frame(40, 40), small)[0].astype(np.float16))
    assert not bool(run.output[:, -8:].any())


@BOTH_TYPES
def test_captured_into_a_graph(library: Library, device: torch.device, dtype: DType) -> None:
    """In the capture anything that allocates or waits would be refused."""
    case = Case("", random_frame(480, 640), COCO)
    run, graph = Run(case, dtype, device), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run.launch(library, current_stream())
    for frame in (case.frame, 255 - case.frame):
        run.frame.copy_(torch.from_numpy(frame.reshape(-1)))
        run.output.fill_(torch.nan)
        graph.replay()
        run.case = dataclasses.replace(case, frame=frame)
        run.check()
