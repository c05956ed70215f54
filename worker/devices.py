"""The device an attempt trains on, and what makes its arithmetic repeatable."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from service.errors import ServiceError
from service.settings import Settings
from service.wording import write_count

# cuBLAS is deterministic only with a fixed workspace, which must be named before CUDA starts.
_CUBLAS_WORKSPACE = ":4096:8"


def prepare_device(settings: Settings) -> torch.device:
    """Return the device of this attempt, with deterministic algorithms, its threads and its memory limit set.

    Raises:
        ServiceError: `device_unavailable`; CUDA is set but there is none.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _CUBLAS_WORKSPACE)
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    device = choose_device(settings)
    if device.type == "cpu" and settings.max_memory_bytes is not None:
        _limit_memory(settings.max_memory_bytes)
    return device


@contextmanager
def limit_threads(device: torch.device, settings: Settings, num_threads: int | None) -> Iterator[None]:
    """Compute with this many threads of a CPU, unless the settings name a number or None leaves it to torch."""
    before = torch.get_num_threads()
    if num_threads is not None and settings.num_threads is None and device.type == "cpu":
        torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _limit_memory(max_bytes: int) -> None:
    """Set the soft limit alone, so that the attempt can lift it to write down why it failed."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, hard))


def choose_device(settings: Settings) -> torch.device:
    """Return the device that the settings ask for.

    Raises:
        ServiceError: `device_unavailable`; CUDA is set but there is none.
    """
    if settings.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if settings.device == "cuda":
        raise ServiceError(
            "device_unavailable",
            "The worker is set to train on CUDA, but it has no CUDA device.",
            param="device",
            hint="Start the worker on a machine with a GPU, or set SAMA_DEVICE=auto.",
        )
    return torch.device("cpu")


def count_devices(device: torch.device) -> int:
    """Return how many devices of this kind the process may use: GPUs, or cores of the CPU."""
    return torch.cuda.device_count() if device.type == "cuda" else len(os.sched_getaffinity(0))


def select_device(device: torch.device, rank: int) -> torch.device:
    """Return the device of one of several processes: a GPU each; the CPU is shared."""
    return torch.device("cuda", rank) if device.type == "cuda" else device


def describe_device(device: torch.device) -> str:
    """Return the device in words for the manifest: the kind that equal bits can be expected of."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()}, {write_count(torch.get_num_threads(), 'thread')})"
