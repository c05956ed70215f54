"""What a figure was measured on: printed beside every table."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def describe_machine() -> str:
    """Return processor, cores, memory, versions and threads in one line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pyarrow", "sqlalchemy"))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{model}, {os.cpu_count()} cores, {gibibytes:.0f} GiB, {device}; Python {platform.python_version()}, "
        f"{versions}; {torch.get_num_threads()} torch threads"
    )
