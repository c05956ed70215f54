"""The table of failures: a code and words for whatever ends an attempt."""

import errno
import subprocess
import sys

import pyarrow as pa
import pytest
import torch
from sqlalchemy.exc import OperationalError

from sama_core.errors import MissingPackageError, NonFiniteError, OptionsError
from service.errors import ServiceError
from service.storage.faults import DataError
from worker.failures import describe_failure


class _UnforeseenError(Exception):
    pass


def _database_error(text: str) -> OperationalError:
    return OperationalError("INSERT INTO secret_table", {}, Exception(text))


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (MemoryError(), "out_of_memory", False),
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory", False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "out_of_memory", False),
        (pa.ArrowMemoryError("malloc of size 9 failed"), "out_of_memory", False),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory", False),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", False),
        (_database_error("database or disk is full"), "disk_full", False),
        (_database_error("connection refused"), "database_unavailable", True),
        (NonFiniteError("the loss", 7), "non_finite_loss", False),
        (OptionsError("lr: -1; wanted more"), "invalid_document", False),
        (MissingPackageError("method: x needs the package y", "y"), "missing_package", False),
        (DataError("invalid_data", "row 17: unreadable", row=17), "bad_data", False),
        (DataError("file_not_found", "there is no such file"), "file_not_found", False),
        (ServiceError("bad_model", "no weights"), "bad_model", False),
        (_UnforeseenError("at /home/someone/secret"), "internal_error", False),
        (RuntimeError("shapes differ"), "internal_error", False),
    ],
)
def test_each_kind_of_error_has_its_failure(error: Exception, code: str, retryable: bool) -> None:
    failure = describe_failure(error)
    assert (failure.code, failure.retryable) == (code, retryable)
    assert failure.message.endswith((".", "unreadable", "file", "weights"))
    assert failure.hint


def test_messages_tell_the_place_but_no_secrets() -> None:
    assert "row 17" in describe_failure(DataError("invalid_data", "row 17: unreadable", row=17)).message
    assert "at step 7" in describe_failure(NonFiniteError("the loss", 7)).message
    assert describe_failure(_UnforeseenError("at /home/someone")).message == (
        "The attempt met an unexpected error (_UnforeseenError)."
    )
    assert "secret_table" not in describe_failure(_database_error("connection refused")).message


def test_the_table_is_read_without_loading_torch() -> None:
    check = "import sys, worker.failures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
