"""The compiled preprocessing, to the last bit what Pillow and numpy make of a frame: on the CPU, and the source of the
CUDA kernel run on the CPU."""

import ctypes
import dataclasses
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from proscale_deploy.core.errors import InputError, PluginError
from proscale_deploy.core.native import DType, Library
from proscale_deploy.core.types import Placement, Size
from proscale_deploy.runtime.compiled.frame_kernels import ResizePlan, preprocess_device, preprocess_host, resize_plan
from proscale_deploy.runtime.preprocess import preprocess
from support.emulator import INVALID_VALUE, Sanitizer, program, run
from support.frame_cases import SPEC, Case, cases, random_frame
from support.sanitized import run_sanitized

CASES = {case.name: case for case in cases()}
some_cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
both_types = pytest.mark.parametrize("dtype", [np.float32, np.float16])


# The tables


def resized_by(plan: ResizePlan, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Columns, then rows, in integers."""
    for axis, taps in ((1, plan.columns), (0, plan.rows)):
        lines = np.moveaxis(frame, axis, 0).astype(np.int64)
        total = sum(taps.weights[:, k, None, None] * lines[taps.first + k] for k in range(taps.count))
        lines = np.minimum((total + (1 << 21)) >> 22, 255)
        frame = np.moveaxis(lines, 0, axis).astype(np.uint8)
    return frame


def resized_by_pillow(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    image = Image.fromarray(frame).resize((width, frame.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def random_sizes() -> list[tuple[Size, Size]]:
    generator = np.random.default_rng(1)
    sizes = np.exp(generator.uniform(0, np.log(90), (400, 4))).astype(int).tolist()
    return [((a, b), (c, d)) for a, b, c, d in sizes]


USUAL = [
    *(((1080, 16), (750, 11)), ((16, 1920), (11, 1333)), ((480, 8), (800, 13)), ((8, 640), (13, 1067))),
    *(
        ((2160, 4), (750, 4)),
        ((4, 3840), (4, 1333)),
        ((720, 2), (750, 2)),
        ((2, 16384), (2, 1333)),
        ((2, 5), (2, 9999)),
    ),
]


def test_the_tables_are_pillows() -> None:
    for source, resized in [*USUAL, *random_sizes()]:
        plan = resize_plan(Placement(source, resized, resized))
        frame = random_frame(*source)
        for pixels in (frame, np.where(frame > 127, np.uint8(255), np.uint8(0)), np.full_like(frame, 255)):
            np.testing.assert_array_equal(resized_by(plan, pixels), resized_by_pillow(pixels, *resized))


def test_what_the_tables_promise() -> None:
    for source, resized in [*USUAL, *random_sizes()]:
        plan = resize_plan(Placement(source, resized, resized))
        for taps, size, new_size in zip((plan.rows, plan.columns), source, resized, strict=True):
            assert taps.first.shape == (new_size,)
            assert taps.weights.shape == (new_size, -(-taps.count // 4) * 4)
            assert taps.first.min() >= 0
            assert taps.first.max() + taps.count <= size
            assert (np.diff(taps.first) >= 0).all()
            assert taps.weights.min() >= 0
            assert not taps.weights[:, taps.count :].any()
            assert np.abs(taps.weights.sum(1) - 2**22).max() <= taps.count / 2
            if size == new_size:
                assert taps.count == 1


def test_tables_are_kept() -> None:
    assert resize_plan(Placement((30, 40), (60, 80), (64, 96))) is resize_plan(Placement((30, 40), (60, 80), (64, 96)))


# On the CPU


@pytest.fixture(scope="module")
def library(host_library: Path) -> Library:
    return Library(host_library)


@both_types
@some_cases
def test_the_host_function_equals_pillow(library: Library, case: Case, dtype: DTypeLike) -> None:
    expected, placement = case.expected(dtype)
    batch = np.full((3, *expected.shape), np.nan, dtype)
    preprocess_host(library, resize_plan(placement), case.spec, case.frame, batch[1])
    np.testing.assert_array_equal(batch[1], expected)
    assert np.isnan(batch[[0, 2]]).all()


def test_frames_in_any_layout(library: Library) -> None:
    frame = random_frame(120, 200)
    views = frame[::-1, ::-1], frame[::2, ::3], frame[..., ::-1], frame[:1], frame[:, :1], np.asfortranarray(frame)
    for view in (*views, np.broadcast_to(frame[:1], (50, 200, 3)), np.broadcast_to(frame[:, :1], (120, 60, 3))):
        expected, placement = preprocess(view, SPEC)
        out = np.empty_like(expected)
        preprocess_host(library, resize_plan(placement), SPEC, view, out)
        np.testing.assert_array_equal(out, expected)


PLAN = resize_plan(Placement((30, 50), (40, 67), (64, 160)))
FRAME, OUT = np.zeros((30, 50, 3), np.uint8), np.zeros((3, 64, 160), np.float32)


@pytest.mark.parametrize(
    ("frame", "out", "message"),
    [
        (FRAME[1:], OUT, r"frame \(30, 50, 3\) uint8, found \(29, 50, 3\) uint8"),
        (FRAME.astype(np.int8), OUT, "found .* int8"),
        (FRAME, OUT[:2], r"out \(3, 64, 160\) float32 or float16, found \(2, 64, 160\)"),
        (FRAME, OUT.astype(np.float64), "found .* float64"),
        (FRAME, np.empty((3, 64, 161), np.float32)[:, :, 1:], "dense"),
        (FRAME, np.broadcast_to(np.float32(0), OUT.shape), "writable"),
    ],
)
def test_arrays_that_cannot_be_used(library: Library, frame: NDArray, out: NDArray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        preprocess_host(library, PLAN, SPEC, frame, out)


SANITIZED = """
import numpy as np

from proscale_deploy.runtime.compiled.frame_kernels import preprocess_host, resize_plan
from support.frame_cases import cases

for case in cases():
    for dtype in (np.float32, np.float16):
        expected, placement = case.expected(dtype)
        out = np.empty_like(expected)
        preprocess_host(library, resize_plan(placement), case.spec, case.frame, out)
        np.testing.assert_array_equal(out, expected)
"""


def test_the_host_function_under_sanitizers(sanitized_library: Path) -> None:
    done = run_sanitized(sanitized_library, SANITIZED)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The CUDA kernel


@dataclasses.dataclass(frozen=True)
class Device:
    """How the emulator behaves: see support.emulator.Device."""

    seed: int = 2
    sanitizer: Sanitizer = "none"
    frame_offset: int = 0
    output_offset: int = 0
    """Bytes from a multiple of 256 to where frame and output begin."""


def launch(task: ctypes.Structure, case: Case, plan: ResizePlan, dtype: DTypeLike, device: Device) -> tuple[int, bytes]:
    """The launcher's status, and the output, which was full of NaN before; ``task`` without its addresses."""
    height, width = case.frame.shape[:2]
    rows = np.lib.stride_tricks.as_strided(case.frame, (height, 3 * width), (case.frame.strides[0], 1))
    pitch = case.frame.strides[0]
    # As little as a device would have to hold: the last row ends with its last pixel.
    frame = b"".join(row.tobytes() + b"\x7f" * (pitch - 3 * width) for row in rows[:-1]) + rows[-1].tobytes()
    tables = plan.columns.weights, plan.rows.weights, plan.columns.first, plan.rows.first
    sizes = (
        len(frame),
        *(table.nbytes for table in tables),
        3 * case.spec.height * case.spec.width * np.dtype(dtype).itemsize,
    )
    header = struct.pack("9i", device.seed, device.frame_offset, device.output_offset, *sizes)
    header += b"\0" * (-(ctypes.sizeof(task) + len(header)) % ctypes.alignment(task))
    data = bytes(task) + header + frame + b"".join(table.tobytes() for table in tables)
    answer = run([str(program("emulate_frame", device.sanitizer))], data)
    return struct.unpack_from("i", answer)[0], answer[4:]


def task_of(case: Case, dtype: DTypeLike) -> tuple[ctypes.Structure, ResizePlan]:
    """What preprocess_device gives to the library, by a library that only keeps it."""
    given: list[ctypes.Structure] = []
    keeper: Any = SimpleNamespace(path="keeper", function=lambda *_: lambda task, _: given.append(task))
    plan = resize_plan(preprocess(case.frame, case.spec)[1])
    number = {np.dtype(np.float32): DType.FLOAT, np.dtype(np.float16): DType.HALF}[np.dtype(dtype)]
    addresses = {"frame": 1, "tables": 1, "output": 1, "stream": 0}
    preprocess_device(keeper, plan, case.spec, number, pitch=case.frame.strides[0], **addresses)
    return given[0], plan


def emulated(case: Case, dtype: DTypeLike, device: Device | None = None) -> NDArray[Any]:
    task, plan = task_of(case, dtype)
    status, output = launch(task, case, plan, dtype, device or Device())
    assert status == 0
    return np.frombuffer(output, dtype).reshape(3, case.spec.height, case.spec.width)


@both_types
@some_cases
def test_the_kernel_equals_pillow(case: Case, dtype: DTypeLike) -> None:
    np.testing.assert_array_equal(emulated(case, dtype), case.expected(dtype)[0])


@some_cases
def test_the_kernel_under_sanitizers(case: Case) -> None:
    """Reads out of the frame or its tables, and races in shared memory."""
    expected = case.expected(np.float32)[0]
    np.testing.assert_array_equal(emulated(case, np.float32, Device(sanitizer="address")), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", ["120x200", "1000x3", "20x32", "121x333"])
def test_no_race(name: str, dtype: DTypeLike) -> None:
    case = CASES[name]
    np.testing.assert_array_equal(emulated(case, dtype, Device(sanitizer="thread")), case.expected(dtype)[0])


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_any_order_of_threads(seed: int) -> None:
    case = CASES["120x200"]
    np.testing.assert_array_equal(emulated(case, np.float32, Device(seed)), case.expected(np.float32)[0])


@both_types
@pytest.mark.parametrize("frame_offset", [0, 1, 2, 3])
@pytest.mark.parametrize("elements", [0, 1, 2])
def test_frames_and_tensors_at_any_place(frame_offset: int, elements: int, dtype: DTypeLike) -> None:
    case = CASES["120x200"]
    device = Device(sanitizer="address", frame_offset=frame_offset, output_offset=elements * np.dtype(dtype).itemsize)
    np.testing.assert_array_equal(emulated(case, dtype, device), case.expected(dtype)[0])


def test_what_the_device_function_is_given() -> None:
    case, calls = CASES["30x40 into odd sizes, BGR"], []

    def function(name: str, arguments: list[Any]) -> Any:
        assert name == "proscale_preprocess_cuda"
        return lambda task, stream: calls.append((task, stream)) or (209 if stream == 7 else 0)

    plan = resize_plan(preprocess(case.frame, case.spec)[1])
    keeper: Any = SimpleNamespace(path=Path("lib.so"), function=function)
    addresses = {"frame": 2**40, "pitch": 120, "tables": 2**41, "output": 2**42}
    preprocess_device(keeper, plan, case.spec, DType.HALF, **addresses, stream=2**47)
    task, stream = calls[0]
    assert stream == 2**47
    assert (task.frame, task.pitch, task.output, task.type, task.rgb) == (2**40, 120, 2**42, 1, 0)
    # Where each table lies in the copy of `tables`.
    for taps, given in ((plan.rows, task.rows), (plan.columns, task.columns)):
        for array, address in ((taps.weights, given.weights), (taps.first, given.first)):
            begin = (address - 2**41) // 4
            np.testing.assert_array_equal(plan.tables[begin : begin + array.size], array.ravel())
        assert (given.count, given.stride) == (taps.count, taps.weights.shape[1])
    with pytest.raises(PluginError, match=r"lib\.so: CUDA error 209 .*plugin build"):
        preprocess_device(keeper, plan, case.spec, DType.HALF, **addresses, stream=7)


WRONG = {
    "no pixels": {"height": 0},
    "rows that overlap": {"pitch": 3 * 200 - 1},
    "larger than the tensor": {"resized_width": 161},
    "a tensor beyond counting": {"output_height": 16 * 65535 + 1},
    "bfloat16": {"type": 2},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused(library: Library, change: dict[str, int]) -> None:
    case = CASES["120x200"]
    task, plan = task_of(case, np.float32)
    for name, value in change.items():
        setattr(task, name, value)
    status, output = launch(task, case, plan, np.float32, Device())
    assert status == INVALID_VALUE
    assert set(output) == {0xFF}  # untouched
    assert library.function("proscale_preprocess_host", [ctypes.c_void_p])(ctypes.addressof(task)) == 1


@pytest.mark.parametrize("change", [{"count": 0}, {"count": 201}, {"stride": 3}, {"stride": 0}])
def test_wrong_tables_are_refused(library: Library, change: dict[str, int]) -> None:
    case = CASES["120x200"]
    task, plan = task_of(case, np.float32)
    for name, value in change.items():
        setattr(task.columns, name, value)
    assert launch(task, case, plan, np.float32, Device())[0] == INVALID_VALUE
    assert library.function("proscale_preprocess_host", [ctypes.c_void_p])(ctypes.addressof(task)) == 1


def test_a_tensor_that_is_not_aligned_is_refused() -> None:
    case = CASES["120x200"]
    task, plan = task_of(case, np.float16)
    assert launch(task, case, plan, np.float16, Device(output_offset=1))[0] == INVALID_VALUE


def test_no_task_is_refused(library: Library) -> None:
    assert library.function("proscale_preprocess_host", [ctypes.c_void_p])(None) == 1
