"""Pickles: arrays come back exactly, and nothing in a file is ever run."""

import collections
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proscale_deploy.core.errors import CheckpointError
from proscale_deploy.export.pickles import load_pickle, to_array

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2.0], np.float16),
    "double": np.array([[1e300]]),
    "big endian": np.array([1.0, 2.0], ">f4"),
    "integers": np.array([-1, 2], np.int64),
    "bytes": np.array([0, 255], np.uint8),
    "truth": np.array([True, False]),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(1, 0, 2),
    "strided": np.arange(10, dtype=np.float32)[::2],
    "scalar": np.float32(3.25),
    "no axes": np.array(7.0),
    "empty": np.zeros((0, 3), np.float32),
}


def load(tmp_path: Path, data: bytes) -> Any:
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return load_pickle(path)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back(tmp_path: Path, name: str, protocol: int) -> None:
    expected = ARRAYS[name]
    found = to_array(load(tmp_path, pickle.dumps(expected, protocol)))
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert found.shape == expected.shape


def test_containers_come_back(tmp_path: Path) -> None:
    ordered = collections.OrderedDict(b=1, a=2)
    ordered._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    plain = {"x": [1, 2.5, None, True], "y": ("text", b"bytes", {1, 2}), "o": ordered}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        if protocol < 2:  # sets need a class there
            plain["y"] = ("text", 1)
        found = load(tmp_path, pickle.dumps(plain, protocol))
        assert found["x"] == plain["x"]
        assert dict(found["o"]) == {"b": 1, "a": 2}
        assert list(found["o"]) == ["b", "a"]


def test_numpy_1_and_python_2(tmp_path: Path) -> None:
    here = pickle.dumps({"w": ARRAYS["matrix"]}, protocol=2)  # by whichever numpy this is
    older = here.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    newer = older.replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    assert older != newer
    for data in (older, newer):
        np.testing.assert_array_equal(to_array(load(tmp_path, data)["w"]), ARRAYS["matrix"])
    # Python 2 wrote the raw bytes themselves as its str (SHORT_BINSTRING), which Python 3 reads as latin1 text.
    raw = ARRAYS["matrix"].tobytes()
    python_2 = (
        b"\x80\x02}q\x00U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tbs."
    )
    np.testing.assert_array_equal(pickle.loads(python_2, encoding="latin1")["w"], ARRAYS["matrix"])
    np.testing.assert_array_equal(to_array(load(tmp_path, python_2)["w"]), ARRAYS["matrix"])


def test_what_is_no_array(tmp_path: Path) -> None:
    for value in (3, "text", None, [1], {"a": 1}, np.dtype("f4")):
        assert to_array(load(tmp_path, pickle.dumps(value))) is None


@pytest.mark.parametrize(
    "array",
    [
        np.array([object, None], dtype=object),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.zeros(2, [("field", "f4")]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([1j]),
        np.array([1.0], np.longdouble),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_of_anything_but_numbers(tmp_path: Path, array: np.ndarray) -> None:
    if array.dtype == object:
        array = np.array([1, "two"], dtype=object)
    with pytest.raises(ValueError, match="not of numbers"):
        to_array(load(tmp_path, pickle.dumps(array, protocol=2)))


class Exploit:
    """Pickles itself as a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def named(name: str, argument: str) -> bytes:
    """A call of ``name`` ("module function"), written by hand."""
    module, function = name.split()
    return b"\x80\x02c" + module.encode() + b"\n" + function.encode() + b"\nX" + _text(argument) + b"\x85R."


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text)) + text.encode()


NAMES = [
    "os system",
    "posix system",
    "subprocess check_output",
    "builtins eval",
    "__builtin__ eval",
    "builtins exec",
    "builtins getattr",
    "builtins open",
    "importlib import_module",
    "operator attrgetter",
    "functools partial",
    "pickle loads",
    "copyreg _reconstructor",
    "torch load",
    "torch.storage _load_from_bytes",
    "torch._utils _rebuild_tensor_v2",
    # Loopholes of earlier lists: they load or run on behalf of the caller, or reach a module through another.
    "numpy load",
    "numpy fromfile",
    "numpy.testing._private.utils runstring",
    "numpy.core.multiarray fromfile",
    "numpy._core.multiarray fromfile",
    "numpy.f2py.crackfortran myeval",
    "numpy ndarray.tofile",
    "numpy._core.multiarray _reconstruct.__globals__",
    "numpy.distutils.exec_command exec_command",
    "numpy.core._multiarray_umath _reconstruct",
    "collections OrderedDict.__init__.__globals__",
    "_codecs lookup",
    "proscale_deploy.export.pickles _Call",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "mark"
    module, function = name.replace("__builtin__", "builtins").replace("numpy.core.", "numpy._core.").split()
    with pytest.raises(CheckpointError, match="nothing was run") as caught:
        load(tmp_path, named(name, f"touch {mark}"))
    assert f"{module}.{function}" in str(caught.value)
    assert "torch.save(" in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_real_exploits_run_nothing(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    program = f"open({str(mark)!r}, 'w').close()"
    exploit = pickle.dumps({"model": {"w": Exploit(eval, program)}}, protocol)
    pickle.loads(exploit)
    assert mark.exists(), "the exploit itself must work, or this test proves nothing"
    mark.unlink()
    with pytest.raises(CheckpointError, match="eval"):
        load(tmp_path, exploit)
    assert not mark.exists()


def test_hidden_in_an_array(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    array = np.array([Exploit(eval, f"open({str(mark)!r}, 'w').close()")], dtype=object)
    with pytest.raises(CheckpointError, match="eval"):
        load(tmp_path, pickle.dumps(array))
    assert not mark.exists()


def test_a_forged_dtype_is_no_way_into_memory(tmp_path: Path) -> None:
    """numpy itself takes this array's bytes for an address, and crashes when the element is read (2.4.6 does)."""
    claims_to_hold_no_objects = (3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0)

    class ForgedDtype:
        def __reduce__(self) -> Any:
            return np.dtype, ("V8", False, True), claims_to_hold_no_objects

    class ForgedArray:
        def __reduce__(self) -> Any:
            make, args, _ = np.zeros(1).__reduce__()
            return make, args, (1, (1,), ForgedDtype(), False, b"\x41" * 8)

    with pytest.raises(ValueError, match="V8"):
        to_array(load(tmp_path, pickle.dumps(ForgedArray(), protocol=2)))


def test_what_is_admitted_cannot_be_bent(tmp_path: Path) -> None:
    """Pickles may set attributes of what they name; the names of one file are not those of the next."""
    good = pickle.dumps(ARRAYS["matrix"], protocol=2)
    slots = b"(N}X" + _text("_function") + b"X" + _text("numpy.dtype") + b"stb."
    load(tmp_path, b"\x80\x02cnumpy\nndarray\n" + slots)
    np.testing.assert_array_equal(to_array(load(tmp_path, good)), ARRAYS["matrix"])
    for name in ("numpy ndarray", "collections OrderedDict"):
        module, function = (part.encode() for part in name.split())
        with pytest.raises(CheckpointError, match="damaged"):  # attributes at large
            load(tmp_path, b"\x80\x02c" + module + b"\n" + function + b"\n}X" + _text("x") + b"K\x01sb.")
        with pytest.raises(CheckpointError, match="damaged"):  # made without __init__
            load(tmp_path, b"\x80\x02c" + module + b"\n" + function + b"\n)\x81.")


@pytest.mark.parametrize(
    "value",
    [
        (1, (2, 3), "f4", False, b"\0" * 23),
        (1, (2, 4), "f4", False, b"\0" * 24),
        (1, ("two",), "f4", False, b"\0" * 24),
        (1, None, "f4", False, b"\0" * 24),
        (1, (2, 3), "f4", False, [1.0] * 6),
        (1, (2, 3), "f4", False, None),
        (1, (6,), None, False, b"\0" * 24),
    ],
)
def test_arrays_whose_parts_do_not_fit(tmp_path: Path, value: tuple[Any, ...]) -> None:
    version, shape, dtype, fortran, data = value

    class Damaged:
        def __reduce__(self) -> Any:
            make, args, _ = np.zeros(1).__reduce__()
            return make, args, (version, shape, dtype and np.dtype(dtype), fortran, data)

    recorded = load(tmp_path, pickle.dumps(Damaged(), protocol=2))
    if shape is None:
        assert to_array(recorded).shape == (6,)  # numpy's own reading of "any shape"
        return
    with pytest.raises((ValueError, TypeError)):
        to_array(recorded)


@pytest.mark.parametrize("cut", [1, 2, 10, 0.5, 0.99])
def test_truncated(tmp_path: Path, cut: float) -> None:
    data = pickle.dumps({"model": ARRAYS}, protocol=4)
    with pytest.raises(CheckpointError, match=r"file\.pkl: damaged or truncated pickle"):
        load(tmp_path, data[: int(cut if cut >= 1 else cut * len(data))])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"\x80\x63}.",  # protocol 99
        b"\x80\x02N0N0.",  # nothing left on the stack
        b"\x80\x02(((((.",
        b"\x80\x02Pmodule\n.",  # persistent id
        b"\x80\x05\x97.",  # out-of-band buffer
        b"\x80\x02h\x07.",  # unknown memo
        b"\x80\x02\x82\x01.",  # extension registry
        b"\x80\x02NNs.",
        b"\x80\x02X\xff\xff\xff\xffabc.",
    ],
)
def test_damaged(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CheckpointError, match="damaged or truncated pickle"):
        load(tmp_path, data)
