"""Reading pickled arrays (detectron2's ``.pkl`` files) without running anything that stands in them.

A pickle is a program: it names functions and calls them. Here nothing it names is ever imported. The few names that
pickled arrays need are stood in for by objects that only record the call, and :func:`to_array` makes arrays from those
records. Not even numpy's own constructors see what the file says: numpy trusts the state of a pickled dtype, and a
forged one gives arrays whose elements are taken for addresses.
"""

import pickle
import re
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from proscale_deploy.core.errors import CheckpointError

__all__ = ["load_pickle", "to_array"]

_RECORDED: Final = {
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "numpy.ndarray",
    "numpy.dtype",
    # Protocol 2 has no bytes: they are written as text to be encoded, empty ones as a call of bytes.
    "_codecs.encode",
    "builtins.bytes",
}
_NUMBER: Final = re.compile("b1|[iu][1248]|f[248]")


def load_pickle(path: Path) -> Any:
    """The object in a pickle of numpy arrays, plain containers, text and numbers; arrays stay for :func:`to_array`.

    Raises:
        CheckpointError: the pickle is damaged, or names anything else; nothing of it has been run then.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except _ForeignName as error:
        raise CheckpointError(
            f"{path}: refused, the pickle wants to load {error}; only numpy arrays and plain containers are admitted, "
            "and nothing was run. If you trust the file, write its weights alone: "
            f"python -c \"import pathlib, pickle, torch; data = pickle.loads(pathlib.Path('{path}').read_bytes()); "
            f"torch.save(data['model'], '{path.stem}_weights.pth')\""
        ) from error
    except Exception as error:  # A damaged pickle raises almost anything (pickle's documentation says so).
        raise CheckpointError(f"{path}: damaged or truncated pickle ({type(error).__name__}: {error})") from error


def to_array(value: Any) -> NDArray[Any] | None:
    """The array (read-only) that a pickle describes by ``value``, or None if ``value`` is no array.

    Raises:
        ValueError: the array holds something else than numbers, or its parts do not fit together.
    """
    if not isinstance(value, _Call):
        return None
    match value.function, value.args, value.state:
        case "numpy._core.multiarray._reconstruct", _, (*_, shape, dtype, fortran, data):
            return _array(data, dtype, shape, "F" if fortran else "C")
        case "numpy._core.multiarray.scalar", (dtype, data), _:
            return _array(data, dtype, (), "C")
        case "numpy._core.numeric._frombuffer", (data, dtype, shape, ("C" | "F") as order), _:
            return _array(data, dtype, shape, order)
        case "numpy._core.numeric._frombuffer", (data, dtype, shape, "K", axes), _:
            return _array(data, dtype, shape, "C").transpose(axes)
    return None


def _array(data: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> NDArray[Any]:
    if isinstance(data, _Call):
        data = _encoded(data)
    if isinstance(data, str):  # Python 2's bytes, read as latin1
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise ValueError(f"an array of {type(data).__name__}, not of numbers")
    return np.frombuffer(bytes(data), _dtype(dtype)).reshape(shape, order=order)


def _encoded(call: "_Call") -> Any:
    match call.function, call.args:
        case "_codecs.encode", (str() as text, "latin1"):
            return text
        case "builtins.bytes", ():
            return b""
    return call


def _dtype(value: Any) -> np.dtype[Any]:
    match value:
        case _Call(function="numpy.dtype", args=(str() as code, *_), state=state) if _NUMBER.fullmatch(code):
            byte_order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
            if byte_order in ("<", ">", "=", "|"):
                return np.dtype(f"{byte_order}{code}")
        case _Call(function="numpy.dtype", args=(code, *_)):
            raise ValueError(f"an array of dtype {code!r}, not of numbers")
    raise ValueError("an array whose dtype is damaged")


class _Call:
    """A recorded call: what a pickle takes for the object it has made."""

    __slots__ = ("args", "function", "state")

    def __init__(self, function: str, args: tuple[Any, ...]) -> None:
        self.function = function
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Recorder:
    """Stands for a function or class that a pickle names."""

    __slots__ = ("_function",)

    def __init__(self, function: str) -> None:
        self._function = function

    def __call__(self, *args: Any) -> _Call:
        return _Call(self._function, args)


class _OrderedDict(dict[Any, Any]):
    """Stands for an OrderedDict; what a pickle sets on it (torch's ``_metadata``) is dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _OrderedDictMaker:
    """Stands for the class OrderedDict. A class of ours would do, were its attributes not open to the pickle."""

    __slots__ = ()

    def __call__(self, *args: Any) -> _OrderedDict:
        return _OrderedDict(*args)


class _ForeignName(Exception):
    """A pickle names what is not admitted."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # numpy 1 and Python 2 have other names for the same modules.
        module = module.replace("numpy.core.", "numpy._core.").replace("__builtin__", "builtins")
        function = f"{module}.{name}"
        if function == "collections.OrderedDict":
            return _OrderedDictMaker()
        if function in _RECORDED:
            return _Recorder(function)
        raise _ForeignName(function)
