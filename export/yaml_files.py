"""Reading detectron2 YAML files: safe, with ``_BASE_`` chains resolved, and typed look-ups in the merged tree."""

import ast
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml

from proscale_deploy.core.errors import CheckpointError
from proscale_deploy.core.file_kind import CONFIGURATION, HEAD, looks_like

__all__ = ["REQUIRED", "Keys", "read_yaml"]

T = TypeVar("T")

REQUIRED: Final[Any] = object()
"""Default of a key that has none: the file must hold it."""

_BASE = "_BASE_"
_INFINITY = float("inf")


@dataclass(frozen=True)
class _Foreign:
    """A value behind a tag that is never evaluated.

    Official Cityscapes and ADE20K files hold ``!!python/object/apply:eval`` in a training key, so such a value is an
    error only where it is asked for.
    """

    tag: str

    def __repr__(self) -> str:
        return f"a value tagged {self.tag.replace('tag:yaml.org,2002:', '!!')}, which is never evaluated"


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads the tuples of detectron2 dumps and leaves every other foreign tag unread."""


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node, deep=True))


def _foreign(loader: _Loader, node: yaml.Node) -> _Foreign:
    return _Foreign(str(node.tag))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)
_Loader.add_constructor(None, _foreign)


def read_yaml(path: Path) -> tuple[dict[str, Any], str]:
    """Read a YAML file and the files it is based on.

    ``_BASE_`` works as in fvcore's ``CfgNode.load_yaml_with_base``: one path, relative to the file that names it
    (``~`` is expanded); the child overrides the base key by key, recursively.

    Returns:
        The merged tree, and the SHA-256 (hex) of the texts it came from, base first.

    Raises:
        CheckpointError: a file is missing or not YAML, a base is not one local path, or the chain runs in a circle.
    """
    files: list[Path] = []
    texts: list[bytes] = []
    trees: list[dict[str, Any]] = []
    following: Path | None = path
    while following is not None:
        if following.resolve() in (file.resolve() for file in files):
            route = " -> ".join(str(file) for file in [*files, following])
            raise CheckpointError(f"{path}: {_BASE} runs in a circle: {route}")
        text, tree = _read_one(following, files[-1] if files else None)
        files.append(following)
        texts.append(text)
        following = _base(following, tree.pop(_BASE, None))
        trees.append(tree)

    merged: dict[str, Any] = {}
    for file, tree in zip(reversed(files), reversed(trees), strict=True):
        merged = _override(merged, tree, file)
    return merged, hashlib.sha256(b"".join(reversed(texts))).hexdigest()


def _read_one(path: Path, child: Path | None) -> tuple[bytes, dict[str, Any]]:
    try:
        text = path.read_bytes()
    except OSError as error:
        if child is not None:
            raise CheckpointError(
                f"{child}: its {_BASE} {path} cannot be read ({error.strerror}); put the file there, or use the full "
                "config.yaml that detectron2 writes into OUTPUT_DIR"
            ) from error
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); expected a detectron2 YAML file") from error
    try:
        tree = yaml.load(text, _Loader)
    except Exception as error:  # Standard tags on the wrong kind of value raise almost anything: KeyError, IndexError.
        # PyYAML puts the place on further lines; a message is one line.
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: not a readable YAML file{_instead(path, text)}: {reason}") from error
    if not isinstance(tree, dict):
        found = "an empty file" if tree is None else f"a {type(tree).__name__}"
        raise CheckpointError(f"{path}: expected a detectron2 configuration (MODEL: ..., INPUT: ...), found {found}")
    return text, tree


def _instead(path: Path, text: bytes) -> str:
    kind = looks_like(path, text[:HEAD], CONFIGURATION)
    return "" if kind.startswith(("a text", "an unknown")) else f", but {kind}"


def _base(path: Path, base: Any) -> Path | None:
    if base is None:
        return None
    if not isinstance(base, str) or "\0" in base:
        raise CheckpointError(f"{path}: {_BASE} must be one path, found {base!r}")
    if base.startswith(("http://", "https://")):
        raise CheckpointError(f"{path}: {_BASE} is {base}; download it and write its local path")
    try:
        return path.parent / Path(base).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"{path}: {_BASE} is {base}, and there is no such home directory") from error


def _override(base: dict[str, Any], child: dict[str, Any], file: Path) -> dict[str, Any]:
    merged = dict(base)
    for key, value in child.items():
        if isinstance(value, dict) and key in base:
            if not isinstance(base[key], dict):
                raise CheckpointError(f"{file}: {key} holds keys here and the value {base[key]!r} in its {_BASE}")
            merged[key] = _override(base[key], value, file)
        else:
            merged[key] = value
    return merged


class Keys:
    """Typed look-ups of dotted keys ("MODEL.RESNETS.DEPTH"); every failure names key, value, file and what is expected.

    All methods raise CheckpointError if the key is missing and its default is ``REQUIRED``, or if its value is not of
    the asked kind. Strings are read as Python literals where they are ones, as yacs does: official files write
    ``TRAIN: ("coco_2017_train",)`` and ``IS_EXCITE_CONV: None``.
    """

    def __init__(self, tree: dict[str, Any], origin: Path) -> None:
        self._tree = tree
        self._origin = origin

    def refuse(self, key: str, found: object, supported: str) -> CheckpointError:
        """The error for a value that is not supported."""
        return CheckpointError(f"{self._origin}: {key} is {found!r}; supported: {supported}")

    def one_of(self, key: str, supported: tuple[T, ...], default: Any = REQUIRED) -> T:
        value = self.value(key, default)
        for candidate in supported:
            if type(value) is type(candidate) and value == candidate:
                return candidate
        raise self.refuse(key, value, " or ".join(repr(candidate) for candidate in supported))

    def flag(self, key: str, default: Any = REQUIRED) -> bool:
        return self.one_of(key, (False, True), default)

    def integer(self, key: str, default: Any = REQUIRED, *, minimum: int = 1) -> int:
        value = self.value(key, default)
        if not _is_integer(value, minimum):
            raise self.refuse(key, value, f"an integer of at least {minimum}")
        return int(value)

    def integers(self, key: str, length: int, default: Any = REQUIRED, *, minimum: int = 1) -> tuple[int, ...]:
        value = self.value(key, default)
        if not _is_list(value, length) or not all(_is_integer(item, minimum) for item in value):
            raise self.refuse(key, value, f"{length} integers of at least {minimum}")
        return tuple(int(item) for item in value)

    def number(
        self, key: str, default: Any = REQUIRED, minimum: float = -_INFINITY, maximum: float = _INFINITY
    ) -> float:
        value = self.value(key, default)
        if not _is_number(value) or not minimum <= value <= maximum:
            limits = "" if (minimum, maximum) == (-_INFINITY, _INFINITY) else f" from {minimum:g} to {maximum:g}"
            raise self.refuse(key, value, f"a number{limits}")
        return float(value)

    def numbers(self, key: str, length: int, default: Any = REQUIRED) -> tuple[float, ...]:
        value = self.value(key, default)
        if not _is_list(value, length) or not all(_is_number(item) for item in value):
            raise self.refuse(key, value, f"{length} numbers")
        return tuple(float(item) for item in value)

    def names(self, key: str, default: Any = REQUIRED) -> tuple[str, ...]:
        value = self.value(key, default)
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self.refuse(key, value, "a list of names")
        return tuple(value)

    def value(self, key: str, default: Any = REQUIRED) -> Any:
        """What stands there, of whatever kind."""
        value: Any = self._tree
        for depth, part in enumerate(key.split(".")):
            if not isinstance(value, dict):
                raise self.refuse(".".join(key.split(".")[:depth]), value, "a group of keys")
            if part not in value:
                if default is REQUIRED:
                    raise CheckpointError(
                        f"{self._origin}: missing key {key}; give the configuration the model was trained with, best "
                        "the full config.yaml that detectron2 writes into OUTPUT_DIR"
                    )
                return default
            value = value[part]
        if isinstance(value, str):
            try:
                return ast.literal_eval(value)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                return value
        return value


def _is_integer(value: object, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_list(value: object, length: int) -> bool:
    return isinstance(value, list | tuple) and len(value) == length
