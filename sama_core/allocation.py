"""How freed memory is kept for the next step."""

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_KEPT = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep what the process frees, instead of handing it back to the system after every step.

    A meta step allocates and frees a few tensors as large as the parameters. By default glibc returns such memory at
    once, and the next step waits for the system to find and clear every page anew: a third of the time of a small
    network's meta step. The process's peak memory stays what it was. It holds for the whole process; another C library
    has no such call and is left alone.

    Returns:
        Whether the setting was taken.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    taken = [set_option(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD), set_option(_M_TRIM_THRESHOLD, _KEPT)]
    return all(taken)
