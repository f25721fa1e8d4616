"""Memory that is freed stays with the process, for training on CPUs.

XLA takes hundreds of megabytes for every step and frees them after it. glibc returns such blocks to
the system, which then has to clear every page of the next step's anew.
"""

import ctypes
import os
import sys

# The parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to keep what is freed, in one pool for all threads.

    Call it before threads start: each would otherwise have got a pool of its own. Users who set
    malloc's environment variables themselves are left alone. The process holds as much memory as
    it ever had in use at once.

    Returns:
      Whether malloc was told: False where the C library has no such parameters.
    """
    if any(name == 'GLIBC_TUNABLES' or name.startswith('MALLOC_') for name in os.environ):
        return False
    if not sys.platform.startswith('linux'):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, 'gnu_get_libc_version'):
        return False
    parameters = {
        _MMAP_MAX: 0,  # large blocks come from the heap too
        _ARENA_MAX: 1,
        _TRIM_THRESHOLD: -1,  # the heap never shrinks
        _TOP_PAD: 16 << 20,  # and grows by at least so many bytes
    }
    return all(library.mallopt(name, value) for name, value in parameters.items())
