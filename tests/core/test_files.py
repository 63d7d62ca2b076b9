"""Output files are complete or not there, and checked before the work."""

import errno
import os
from pathlib import Path

import pytest

from proscale_deploy.core.errors import InputError
from proscale_deploy.core.files import check_not_input, check_output, replacing


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".txt"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_changes_when_the_block_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failed_write_names_the_file(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "a.txt"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: .*a\.txt"):
        fail()


def test_a_good_place(tmp_path: Path) -> None:
    check_output(tmp_path / "a.txt")
    check_output(Path("a.txt"))


def test_bad_places(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, message in [
        (tmp_path / "none" / "a.txt", "mkdir -p"),
        (tmp_path / "file" / "a.txt", "is a file, not a folder"),
        (tmp_path, "it is a folder"),
    ]:
        with pytest.raises(InputError, match=message):
            check_output(path)


def test_an_input_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "link").symlink_to("a.txt")
    check_not_input([tmp_path / "b.txt"], [tmp_path / "a.txt"])
    for output in ("a.txt", "link", "../" + tmp_path.name + "/a.txt"):
        with pytest.raises(InputError, match="replace the input"):
            check_not_input([tmp_path / output], [tmp_path / "a.txt"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: needs an ordinary user")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="no permission"):
        check_output(tmp_path / "a.txt")
