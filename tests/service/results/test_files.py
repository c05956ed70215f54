"""The store of exported files: whole files or none."""

import hashlib
import os
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from service.errors import ServiceError
from service.results.files import ExportStore


def test_a_file_is_named_by_its_digest(tmp_path: Path) -> None:
    store = ExportStore(tmp_path / "exports")
    stored = store.add(lambda file: file.write(b"abc") and None)
    assert stored.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert (stored.path.name, stored.size_bytes, stored.path.read_bytes()) == (stored.sha256, 3, b"abc")
    assert store.find(stored.sha256, 3) == stored
    assert store.find(stored.sha256, 4) is None
    assert store.find("0" * 64, 3) is None
    store.remove([stored.sha256, "0" * 64])
    assert store.find(stored.sha256, 3) is None


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device", str(tmp_path))

    with pytest.raises(ServiceError, match=r"The server cannot write the file\.") as error:
        ExportStore(tmp_path).add(fail)
    assert error.value.code == "storage_unavailable"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_later(tmp_path: Path) -> None:
    old, new, whole = tmp_path / ".partial-1", tmp_path / ".partial-2", tmp_path / ("0" * 64)
    for path in (old, new, whole):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    os.utime(whole, (time.time() - 7200,) * 2)
    ExportStore(tmp_path).remove_leftovers()
    assert sorted(tmp_path.iterdir()) == sorted([new, whole])
    ExportStore(tmp_path / "missing").remove_leftovers()
