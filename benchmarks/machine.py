"""What a figure was measured on: printed beside every table."""

import os
import platform
import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

_PACKAGES = ("torch", "numpy", "transformers", "pyarrow", "sqlalchemy")


def name_machine() -> str:
    """Return processor and cores, or the GPU, as part of a file name."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{_read_processor()} {os.cpu_count()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _read_processor() -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_machine() -> str:
    """Return processor, cores, memory, versions and threads in one line."""
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES if find_spec(name))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_read_processor()}, {os.cpu_count()} cores, {gibibytes:.0f} GiB, {device}; "
        f"Python {platform.python_version()}, {versions}; {torch.get_num_threads()} torch threads"
    )
