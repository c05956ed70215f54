"""Server processes that live no longer than the test run."""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
_STOP_SECONDS = 10.0


def unprivileged_user() -> str | None:
    """Return the user that servers run as when the tests run as root; Postgres refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def make_server_directory(prefix: str, user: str | None) -> Path:
    """Return a new short-named directory (socket paths are limited to 107 bytes) that `user` owns."""
    directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir="/tmp"))
    if user is not None:
        shutil.chown(directory, user)
    return directory


def start_server(command: Sequence[str | Path], directory: Path, user: str | None) -> subprocess.Popen[bytes]:
    """Start a server in `directory`; it is told to stop when this process dies, however it dies."""
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=directory,
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGINT),
        )


def wait_until_ready(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], directory: Path) -> None:
    """Return once `is_ready()`; raises with the end of the server's log if it ends or takes 30 seconds."""
    deadline = time.monotonic() + 30
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            log = (directory / "log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{process.args!r} did not start (exit code {process.poll()}):\n{log}")
        time.sleep(0.01)


def stop_server(process: subprocess.Popen[bytes], signal_number: int = signal.SIGINT) -> None:
    """Send the signal and wait for the end; a server that ignores it is killed."""
    process.send_signal(signal_number)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
