"""What becomes of memory that a training step has freed, on a CPU.

glibc's malloc gives large blocks and the top of the heap back to the system as soon as they are free, and every step
gets them anew, page by page, each page zeroed. Kept, they cost nothing, which saves most in virtual machines: their
page faults are slow.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 2**31 - 1  # mallopt(3) takes an int


def keep_freed_memory() -> bool:
    """From here on freed memory stays with the process: its size is that of its largest step. False: not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(M_TRIM_THRESHOLD, LARGEST))
