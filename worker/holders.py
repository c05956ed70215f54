"""Finding and ending the processes of this machine that still hold an expired lease."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from service.attempts.tables import WorkerTable
from worker.child import make_command

_PROCESSES = Path("/proc")
_STOPPED_STATES = "Tt"


def kill_attempt(job_id: str, attempt: int) -> bool:
    """Kill the process of this attempt if it runs on this machine; say whether there was one."""
    wanted = make_command(job_id, attempt, ends_at=0.0)[-4:-1]
    found = [process_id for process_id, words in _list_commands() if words[-4:-1] == wanted]
    for process_id in found:
        _kill(process_id)
    return bool(found)


def kill_frozen_worker(worker: WorkerTable, hostname: str) -> bool:
    """Kill this worker if it is a stopped process of this machine; say whether it was.

    A running one is left alone: it will find out by itself that its lease is gone.
    """
    if worker.hostname != hostname or worker.process_id == os.getpid() or not _is_stopped(worker.process_id):
        return False
    _kill(worker.process_id)
    return True


def _kill(process_id: int) -> None:
    try:
        os.kill(process_id, signal.SIGKILL)
    except ProcessLookupError:
        return


def _list_commands() -> Iterator[tuple[int, list[str]]]:
    if not _PROCESSES.is_dir():
        return
    for folder in _PROCESSES.iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            yield int(folder.name), words.rstrip("\0").split("\0")


def _is_stopped(process_id: int) -> bool:
    try:
        status = (_PROCESSES / str(process_id) / "stat").read_text(errors="replace")
    except OSError:
        return False
    state = status.rpartition(")")[2].split()[0]  # the name before it may hold anything, brackets too
    return state in _STOPPED_STATES
