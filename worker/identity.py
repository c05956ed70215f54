"""Who this worker is: a name of its own and the device it offers, found without loading torch."""

import os
import secrets
import shutil
import socket
import subprocess
from dataclasses import dataclass

from service.settings import Settings

_QUERY = ("--query-gpu=name", "--format=csv,noheader")
_QUERY_SECONDS = 20.0
_MAX_DEVICE_LENGTH = 64


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """One worker process. `id` never returns: it ends in random digits."""

    id: str
    hostname: str
    process_id: int
    device: str


def make_identity(settings: Settings) -> WorkerIdentity:
    """Return the identity of this process."""
    hostname, process_id = socket.gethostname(), os.getpid()
    return WorkerIdentity(
        id=f"{hostname}-{process_id}-{secrets.token_hex(4)}",
        hostname=hostname,
        process_id=process_id,
        device=find_device(settings),
    )


def find_device(settings: Settings) -> str:
    """Return the device in words: the GPU's name where there is one to use, else `cuda` or `cpu`."""
    if settings.device == "cpu":
        return "cpu"
    return _find_gpu_name() or ("cuda" if settings.device == "cuda" else "cpu")


def _find_gpu_name() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    try:
        answer = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    names = answer.stdout.split("\n")
    return names[0].strip()[:_MAX_DEVICE_LENGTH] or None
