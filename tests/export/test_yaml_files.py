"""Reading YAML: nothing is evaluated, bases are merged as in detectron2, every failure says what and where."""

from pathlib import Path

import pytest

from proscale_deploy.core.errors import CheckpointError
from proscale_deploy.export.yaml_files import Keys, read_yaml


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def message(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_child_overrides_its_bases_key_by_key(tmp_path: Path) -> None:
    write(tmp_path, "base/root.yaml", "A: {x: 1, y: {p: 1, q: [1, 2]}}\nB: 7\n")
    write(tmp_path, "base/middle.yaml", "_BASE_: root.yaml\nA: {y: {q: [3]}}\nC: 8\n")
    child = write(tmp_path, "child.yaml", "_BASE_: base/middle.yaml\nA: {x: 2}\nB: {z: 1}\n")
    with pytest.raises(CheckpointError, match=r"child.yaml: B holds keys here and the value 7 in its _BASE_"):
        read_yaml(child)
    child.write_text("_BASE_: base/middle.yaml\nA: {x: 2}\nC: [9]\n")
    tree, _ = read_yaml(child)
    assert tree == {"A": {"x": 2, "y": {"p": 1, "q": [3]}}, "B": 7, "C": [9]}


def test_home_and_absolute_bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    base = write(tmp_path, "home/base.yaml", "A: 1\n")
    for where in ("~/base.yaml", str(base)):
        assert read_yaml(write(tmp_path, "elsewhere/child.yaml", f"_BASE_: {where}\n"))[0] == {"A": 1}


def test_the_hash_is_of_the_whole_chain(tmp_path: Path) -> None:
    base = write(tmp_path, "base.yaml", "A: 1\n")
    child = write(tmp_path, "child.yaml", "_BASE_: base.yaml\n")
    # printf 'A: 1\n_BASE_: base.yaml\n' | sha256sum
    expected = "8405099d4ae0c60f53574d2e0dd604a3804bd9fab997574aa6d9f741fc556abf"
    assert read_yaml(child)[1] == expected
    base.write_text("A: 2\n")
    assert read_yaml(child)[1] != expected


def test_aliased_groups_are_overridden_apart(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "A: &group {x: 1}\nB: *group\n")
    child = write(tmp_path, "child.yaml", "_BASE_: base.yaml\nA: {x: 2}\n")
    assert read_yaml(child)[0] == {"A": {"x": 2}, "B": {"x": 1}}


def test_a_circle_of_bases(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "_BASE_: sub/../b.yaml\n")
    (tmp_path / "sub").mkdir()
    start = write(tmp_path, "b.yaml", "_BASE_: a.yaml\n")
    assert "runs in a circle" in message(start)
    assert "runs in a circle" in message(write(tmp_path, "self.yaml", "_BASE_: self.yaml\n"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "found an empty file"),
        ("just a sentence", "found a str"),
        ("- 1\n- 2\n", "found a list"),
        ("A: [1, 2\n", "not a readable YAML file"),
        ("A:\n\t- 1\n", "not a readable YAML file"),
        ("A: 2001-99-99\n", "not a readable YAML file"),
        ("A: \x00\n", "not a readable YAML file"),
        ("[" * 5000, "not a readable YAML file"),
        ('A: !!int ""\n', "not a readable YAML file"),
        ("A: !!bool perhaps\n", "not a readable YAML file"),
        ("A: !!timestamp soon\n", "not a readable YAML file"),
        ("? !!python/tuple [[a]]\n: 1\n", "not a readable YAML file"),
        ("_BASE_: [a.yaml, b.yaml]\n", "must be one path"),
        ("_BASE_: 3\n", "must be one path"),
        ('_BASE_: "a\\0b"\n', "must be one path"),
        ("_BASE_: ~no_such_user_here/base.yaml\n", "no such home directory"),
        ("_BASE_: https://example.org/base.yaml\n", "download it"),
        ("_BASE_: nowhere.yaml\n", "nowhere.yaml cannot be read"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in message(write(tmp_path, "c.yaml", text))


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert "No such file" in message(tmp_path / "missing.yaml")
    assert "directory" in message(tmp_path)
    binary = tmp_path / "weights.pth"
    binary.write_bytes(bytes(range(256)))
    assert "not a readable YAML file" in message(binary)


TAGS = [
    '!!python/object/apply:os.system ["touch {mark}"]',
    '!!python/object/apply:eval ["open(\\"{mark}\\", \\"w\\")"]',
    "!!python/object/new:os.system [touch {mark}]",
    "!!python/name:os.system",
    "!!python/object:pathlib.Path {{}}",
    "!custom {{a: 1}}",
]


@pytest.mark.parametrize("tag", TAGS)
def test_tags_are_never_evaluated(tmp_path: Path, tag: str) -> None:
    mark = tmp_path / "mark"
    path = write(tmp_path, "c.yaml", f"UNUSED: {tag.format(mark=mark)}\nA: 1\n")
    tree, _ = read_yaml(path)
    keys = Keys(tree, path)
    assert keys.integer("A") == 1
    with pytest.raises(CheckpointError, match=r"UNUSED is a value tagged !.*never evaluated"):
        keys.integer("UNUSED")
    assert not mark.exists()


def test_tuples_of_detectron2_dumps(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", "A: !!python/tuple [1, 2]\nB:\n- !!python/tuple\n  - x\n  - y\n")
    assert read_yaml(path)[0] == {"A": (1, 2), "B": [("x", "y")]}


def keys(**tree: object) -> Keys:
    return Keys(tree, Path("c.yaml"))


def test_text_that_is_a_python_literal() -> None:
    read = keys(A="(1, 2)", B="None", C="1e-3", D="('x',)", E="plain", F="", G="{[]: 1}")
    assert read.integers("A", 2) == (1, 2)
    assert read.one_of("B", (False, None)) is None
    assert read.number("C") == 1e-3
    assert read.names("D") == ("x",)
    assert read.one_of("E", ("plain",)) == "plain"
    assert read.one_of("F", ("GN", "")) == ""
    assert read.value("G") == "{[]: 1}"  # looks like a literal and is none


def test_defaults_fill_missing_keys_and_groups_only() -> None:
    read = keys(A={"x": 3})
    assert read.integer("A.x", 5) == 3
    assert read.integer("A.y", 5) == 5
    assert read.integer("B.C.D", 5) == 5
    with pytest.raises(CheckpointError, match=r"c\.yaml: missing key A\.y"):
        read.integer("A.y")
    with pytest.raises(CheckpointError, match=r"A\.x is 3; supported: a group of keys"):
        read.integer("A.x.z", 5)


@pytest.mark.parametrize("value", [True, 1.0, "8x", None, [8], -1, float("nan")])
def test_what_is_no_integer(value: object) -> None:
    with pytest.raises(CheckpointError, match=r"c\.yaml: A is .*; supported: an integer of at least 0"):
        keys(A=value).integer("A", minimum=0)


@pytest.mark.parametrize("value", [False, "x", None, [0.5], float("nan"), float("inf"), 1.5, -0.5])
def test_what_is_no_number_in_range(value: object) -> None:
    with pytest.raises(CheckpointError, match="supported: a number from 0 to 1"):
        keys(A=value).number("A", 0.5, 0.0, 1.0)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 10**400])
def test_what_no_float_can_hold(value: float) -> None:
    with pytest.raises(CheckpointError, match=r"supported: a number$"):
        keys(A=value).number("A")
    with pytest.raises(CheckpointError, match=r"supported: 2 numbers$"):
        keys(A=[1.0, value]).numbers("A", 2)


@pytest.mark.parametrize("value", [1, 0, "yes", None, [True]])
def test_what_is_no_flag(value: object) -> None:
    with pytest.raises(CheckpointError, match="supported: False or True"):
        keys(A=value).flag("A")


@pytest.mark.parametrize("value", [3, [1, 2], [1, 2, 3, 4], [1, 2, -3], [1, 2, 3.0], {"a": 1}, "abc", [1, 2, None]])
def test_what_are_no_three_integers(value: object) -> None:
    with pytest.raises(CheckpointError, match="supported: 3 integers of at least 0"):
        keys(A=value).integers("A", 3, minimum=0)


def test_names() -> None:
    assert keys(A=["x", "y"]).names("A") == ("x", "y")
    assert keys(A="x").names("A") == ("x",)
    for value in (3, None, ["x", 1], {"x": 1}):
        with pytest.raises(CheckpointError, match="supported: a list of names"):
            keys(A=value).names("A")
