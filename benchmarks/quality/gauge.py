"""Seconds and peak memory of a stretch of work in this process."""

import os
import time
from pathlib import Path

import torch

_MIB = 2**20
_FORGET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class Gauge:
    """Reads a clock and the peak of memory.

    On a CPU the clock counts the processor time of this process and of the children it waited for, so that a busy
    machine disturbs little, and memory is the resident set. On CUDA: the clock on the wall, and what tensors take.
    """

    def __init__(self, device: str) -> None:
        self._is_cuda = device.startswith("cuda")

    def read_clock(self) -> float:
        """Return seconds since some moment."""
        if self._is_cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        times = os.times()
        return time.process_time() + times.children_user + times.children_system

    def forget_peak(self) -> None:
        """Count the peak from now on."""
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats()
        elif _FORGET.exists():
            _FORGET.write_text("5")

    def read_peak(self) -> float | None:
        """Return the peak in MiB; None where the system does not tell."""
        if self._is_cuda:
            return torch.cuda.max_memory_allocated() / _MIB
        for line in _STATUS.read_text().splitlines() if _STATUS.exists() else ():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
        return None
