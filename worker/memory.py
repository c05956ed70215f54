"""Evidence that the kernel killed a process for want of memory."""

from pathlib import Path

_KERNEL_COUNTERS = Path("/proc/vmstat")


def count_memory_kills(counters: Path = _KERNEL_COUNTERS) -> int | None:
    """Return how many processes the kernel has killed for memory since it started; None where it does not say."""
    try:
        lines = counters.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = dict(line.split(" ", 1) for line in lines)
    return int(values["oom_kill"]) if "oom_kill" in values else None
