"""Paths of a document: inside the allowed folders, real files, no links out, no pipes."""

import os
from pathlib import Path

import pytest

from service.storage.faults import DataError
from service.storage.roots import open_readonly, resolve_folder, resolve_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "a.csv").write_text("a\n1\n")
    (tmp_path / "secret.csv").write_text("x\n")
    return root


@pytest.mark.parametrize("uri", ["inner/a.csv", "./inner/../inner/a.csv"])
def test_relative_path_starts_at_a_root(root: Path, uri: str) -> None:
    assert resolve_path(uri, [root.parent / "none", root]) == root / "inner" / "a.csv"


def test_absolute_path_and_file_uri(root: Path) -> None:
    file = root / "inner" / "a.csv"
    assert resolve_path(str(file), [root]) == file
    assert resolve_path(f"file://{file}", [root]) == file
    assert resolve_path(f"file://localhost{file}", [root]) == file


def test_file_uri_is_unquoted(root: Path) -> None:
    (root / "a b.csv").write_text("a\n1\n")
    assert resolve_path(f"file://{root}/a%20b.csv", [root]) == root / "a b.csv"


@pytest.mark.parametrize(
    ("uri", "code", "message"),
    [
        ("../secret.csv", "path_not_allowed", "lies outside of the allowed folders"),
        ("../missing.csv", "path_not_allowed", "lies outside of the allowed folders"),
        ("/etc/passwd", "path_not_allowed", "lies outside of the allowed folders"),
        ("out.csv", "path_not_allowed", "lies outside of the allowed folders"),
        ("loop.csv", "path_not_allowed", "lies outside of the allowed folders"),
        ("missing.csv", "file_not_found", "there is no such file"),
        ("inner/a.csv/b", "file_not_found", "there is no such file"),
        ("inner", "not_a_file", "is a folder; wanted a file"),
        ("pipe.csv", "not_a_file", "no regular file; wanted a file"),
        ("s3://bucket/a.csv", "path_not_allowed", "available: a local path or file:///absolute/path"),
        ("file://host/a.csv", "path_not_allowed", "available: a local path or file:///absolute/path"),
        ("a\0b", "path_not_allowed", "is no path"),
    ],
)
def test_path_is_refused(root: Path, uri: str, code: str, message: str) -> None:
    (root / "out.csv").symlink_to(root.parent / "secret.csv")
    (root / "loop.csv").symlink_to(root / "loop.csv")
    os.mkfifo(root / "pipe.csv")
    with pytest.raises(DataError) as caught:
        resolve_path(uri, [root], param="meta.uri")
    assert (caught.value.code, caught.value.param) == (code, "meta.uri")
    assert message in caught.value.message
    assert str(root.parent) not in caught.value.message


def test_link_inside_is_followed(root: Path) -> None:
    (root / "b.csv").symlink_to(root / "inner" / "a.csv")
    assert resolve_path("b.csv", [root]) == root / "inner" / "a.csv"


def test_folder(root: Path) -> None:
    assert resolve_folder("inner", [root], param="model.name") == root / "inner"
    with pytest.raises(DataError, match="which is no folder; wanted a folder"):
        resolve_folder("inner/a.csv", [root], param="model.name")


def test_link_put_there_meanwhile_is_not_followed(root: Path) -> None:
    path = resolve_path("inner/a.csv", [root])
    path.unlink()
    path.symlink_to(root.parent / "secret.csv")
    with pytest.raises(OSError, match=r"a\.csv"):
        open_readonly(path)


def test_folder_swapped_for_a_link_is_not_followed(root: Path) -> None:
    path = resolve_path("inner/a.csv", [root])
    (root / "inner").rename(root.parent / "moved")
    (root / "inner").symlink_to(root.parent / "moved")
    with pytest.raises(OSError, match="inner"):
        open_readonly(path)


def test_pipe_put_there_meanwhile_does_not_block(root: Path) -> None:
    path = resolve_path("inner/a.csv", [root])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        open_readonly(path)
